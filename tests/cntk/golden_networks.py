"""Whole networks of few channels, built the way CNTK's own examples build theirs; see make_goldens.py."""

import tempfile

import numpy as np

CLASSES = 5


def fill(root, rng):
    """Gives every parameter, and the statistics of batch normalisations, random values of a sensible size."""
    for parameter in root.parameters:
        shape = parameter.shape
        if parameter.name == "scale":
            value = rng.uniform(0.7, 1.3, shape)
        elif parameter.name in ("b", "bias"):
            value = rng.uniform(-0.3, 0.3, shape)
        else:  # weights: CNTK has the outputs last in a Dense, first in a convolution
            convolution = len(shape) == 4 and (shape[2] == shape[3] or shape[2:] in ((1, 7), (7, 1), (1, 3), (3, 1)))
            fan_in = np.prod(shape[1:]) if convolution else np.prod(shape[:-1])
            value = rng.standard_normal(shape) * np.sqrt(2.0 / max(fan_in, 1))
            if convolution and shape[1] == 3 and any(argument.name == "features" for argument in root.arguments):
                value = value / 64  # the first layer sees 0 to 255
        parameter.value = np.asarray(value, dtype=parameter.dtype)
    for constant in root.constants:
        if constant.name == "aggregate_mean":
            constant.value = rng.uniform(-0.3, 0.3, constant.shape).astype(constant.dtype)
        elif constant.name == "aggregate_variance":
            constant.value = rng.uniform(0.5, 1.5, constant.shape).astype(constant.dtype)


def reloaded(cntk, root, change=None, legacy=False):
    """The model as it comes back from a file, which is of CNTK's first format or has some bytes changed."""
    with tempfile.NamedTemporaryFile(suffix=".model") as file:
        if legacy:
            cntk.cntk_py.save_as_legacy_model(root, file.name)
        else:
            root.save(file.name)
        if change:
            with open(file.name, "rb") as old:  # noqa: PTH123
                data = change(old.read())
            with open(file.name, "wb") as new:  # noqa: PTH123
                new.write(data)
        return cntk.Function.load(file.name)


def features(cntk, size):
    return cntk.input_variable((3, size, size), name="features")


def lrn_layer(cntk, k, n, alpha, beta, name=""):
    """Local response normalisation as CNTK's example of AlexNet composes it."""

    @cntk.BlockFunction("LocalResponseNormalization", name)
    def normalise(x):
        squared = cntk.reshape(cntk.square(x), (1, cntk.InferredDimension), 0, 1)
        weight = cntk.constant(alpha / (2 * n + 1), (1, 2 * n + 1, 1, 1), name="W")
        total = cntk.reshape(cntk.convolution(weight, squared), cntk.InferredDimension, 0, 2)
        return cntk.element_divide(x, cntk.exp(beta * cntk.log(k + total)))

    return normalise


def alexnet(cntk):
    layers = cntk.layers
    with cntk.default_options(activation=None, pad=True, bias=True):
        model = layers.Sequential(
            [
                layers.Convolution2D((11, 11), 6, pad=False, strides=(4, 4), name="conv1"),
                layers.Activation(cntk.relu, name="relu1"),
                lrn_layer(cntk, 1.0, 2, 0.5, 0.75, name="norm1"),
                layers.MaxPooling((3, 3), (2, 2), name="pool1"),
                layers.Convolution2D((5, 5), 6, name="conv2"),
                layers.Activation(cntk.relu, name="relu2"),
                lrn_layer(cntk, 1.0, 2, 0.5, 0.75, name="norm2"),
                layers.MaxPooling((3, 3), (2, 2), name="pool2"),
                layers.Convolution2D((3, 3), 8, name="conv3"),
                layers.Activation(cntk.relu, name="relu3"),
                layers.Convolution2D((3, 3), 8, name="conv4"),
                layers.Activation(cntk.relu, name="relu4"),
                layers.Convolution2D((3, 3), 6, name="conv5"),
                layers.Activation(cntk.relu, name="relu5"),
                layers.MaxPooling((3, 3), (2, 2), name="pool5"),
                layers.Dense(16, name="fc6"),
                layers.Activation(cntk.relu, name="relu6"),
                layers.Dropout(0.5, name="drop6"),
                layers.Dense(16, name="fc7"),
                layers.Activation(cntk.relu, name="relu7"),
                layers.Dropout(0.5, name="drop7"),
                layers.Dense(CLASSES, name="fc8"),
            ]
        )
    return model(cntk.minus(features(cntk, 67), cntk.constant(114), name="mean_removed_input"))


def vgg(cntk):
    """The plan of VGG 16: thirteen convolutions, five poolings, three full layers, and a softmax."""
    layers = cntk.layers
    plan = [2, 2, 3, 3, 3]
    with cntk.default_options(activation=None, pad=True, bias=True):
        model = layers.Sequential(
            [
                layers.For(
                    range(5),
                    lambda i: [
                        layers.For(
                            range(plan[i]),
                            lambda j: [
                                layers.Convolution2D(
                                    (3, 3), 4 + 2 * min(i, 2), name="conv" + str(i + 1) + "_" + str(j + 1)
                                ),
                                layers.Activation(cntk.relu, name="relu" + str(i + 1) + "_" + str(j + 1)),
                            ],
                        ),
                        layers.MaxPooling((2, 2), (2, 2), name="pool" + str(i + 1)),
                    ],
                ),
                layers.Dense(16, name="fc6"),
                layers.Activation(cntk.relu, name="relu6"),
                layers.Dropout(0.5, name="drop6"),
                layers.Dense(16, name="fc7"),
                layers.Activation(cntk.relu, name="relu7"),
                layers.Dropout(0.5, name="drop7"),
                layers.Dense(CLASSES, name="fc8"),
            ]
        )
    mean = np.array([104, 117, 124], dtype=np.float32).reshape(3, 1, 1)
    return cntk.softmax(model(cntk.minus(features(cntk, 64), cntk.constant(mean))), name="probabilities")


def conv_bn(cntk, x, size, filters, strides=(1, 1), pad=True):
    c = cntk.layers.Convolution(size, filters, activation=None, pad=pad, strides=strides, bias=False)(x)
    return cntk.layers.BatchNormalization(
        map_rank=1, normalization_time_constant=4096, use_cntk_engine=False, disable_regularization=True
    )(c)


def conv_bn_relu(cntk, x, size, filters, strides=(1, 1), pad=True, name=""):
    return cntk.relu(conv_bn(cntk, x, size, filters, strides, pad), name=name)


def inception_block(cntk, x, name):
    one = conv_bn_relu(cntk, x, (1, 1), 3)
    three = conv_bn_relu(cntk, conv_bn_relu(cntk, x, (1, 1), 2), (3, 3), 3)
    double = conv_bn_relu(cntk, conv_bn_relu(cntk, x, (1, 1), 2), (3, 3), 2)
    double = conv_bn_relu(cntk, double, (3, 3), 2)
    pool = cntk.layers.AveragePooling((3, 3), strides=(1, 1), pad=True)(x)
    return cntk.splice(one, three, double, conv_bn_relu(cntk, pool, (1, 1), 2), axis=0, name=name)


def inception_reduction(cntk, x, name):
    three = conv_bn_relu(cntk, conv_bn_relu(cntk, x, (1, 1), 2), (3, 3), 4, strides=(2, 2))
    pool = cntk.layers.MaxPooling((3, 3), strides=(2, 2), pad=True)(x)
    return cntk.splice(three, pool, axis=0, name=name)


def inception_factored(cntk, x, name):
    """Seven by seven as one by seven and seven by one; and one by three beside three by one."""
    one = conv_bn_relu(cntk, x, (1, 1), 3)
    seven = conv_bn_relu(cntk, conv_bn_relu(cntk, x, (1, 1), 2), (1, 7), 2)
    seven = conv_bn_relu(cntk, seven, (7, 1), 3)
    split = conv_bn_relu(cntk, x, (1, 1), 2)
    split = cntk.splice(conv_bn_relu(cntk, split, (1, 3), 2), conv_bn_relu(cntk, split, (3, 1), 2), axis=0)
    return cntk.splice(one, seven, split, axis=0, name=name)


def inception(cntk):
    """With an auxiliary head, in the order the examples combine them."""
    x = features(cntk, 64)
    y = cntk.minus(x, cntk.constant(128))
    y = conv_bn_relu(cntk, y, (7, 7), 4, strides=(2, 2), name="conv1")
    y = cntk.layers.MaxPooling((3, 3), strides=(2, 2), pad=True)(y)
    y = conv_bn_relu(cntk, y, (3, 3), 6, pad=False)
    y = inception_block(cntk, y, "mixed1")
    y = inception_reduction(cntk, y, "mixed2")
    head = cntk.layers.AveragePooling((3, 3), strides=(2, 2))(y)
    head = cntk.layers.Dense(CLASSES, name="aux")(conv_bn_relu(cntk, head, (1, 1), 4))
    y = inception_factored(cntk, y, "mixed3")
    y = cntk.layers.GlobalAveragePooling(name="pool")(y)
    return cntk.combine([head, cntk.layers.Dense(CLASSES, name="z")(cntk.layers.Dropout(0.2)(y))])


def resnet_basic(cntk, x, filters, name=""):
    c = conv_bn(cntk, conv_bn_relu(cntk, x, (3, 3), filters), (3, 3), filters)
    return cntk.relu(c + x, name=name)


def resnet_basic_inc(cntk, x, filters):
    c = conv_bn(cntk, conv_bn_relu(cntk, x, (3, 3), filters, (2, 2)), (3, 3), filters)
    return cntk.relu(c + conv_bn(cntk, x, (1, 1), filters, (2, 2)))


def resnet_bottleneck(cntk, x, outer, inner, name=""):
    c = conv_bn_relu(cntk, conv_bn_relu(cntk, x, (1, 1), inner), (3, 3), inner)
    return cntk.relu(conv_bn(cntk, c, (1, 1), outer) + x, name=name)


def resnet_bottleneck_inc(cntk, x, outer, inner, stride_1x1, stride_3x3):
    c = conv_bn_relu(cntk, conv_bn_relu(cntk, x, (1, 1), inner, stride_1x1), (3, 3), inner, stride_3x3)
    shortcut = conv_bn(cntk, x, (1, 1), outer, np.multiply(stride_1x1, stride_3x3))
    return cntk.relu(conv_bn(cntk, c, (1, 1), outer) + shortcut)


def resnet_head(cntk, x):
    pool = cntk.layers.AveragePooling((3, 3), name="z.x")(x)
    return cntk.layers.Dense(CLASSES, name="z")(pool)


def resnet_of_basic(cntk, depths, widths):
    x = conv_bn_relu(cntk, features(cntk, 96), (7, 7), widths[0], strides=(2, 2), name="conv1.r")
    x = cntk.layers.MaxPooling((3, 3), strides=(2, 2), pad=True)(x)
    for stage, (depth, width) in enumerate(zip(depths, widths)):  # noqa: B905
        if stage:
            x = resnet_basic_inc(cntk, x, width)
        for block in range(1 if stage else 0, depth):
            last = stage == 3 and block == depth - 1
            x = resnet_basic(cntk, x, width, name="z.x.x.r" if last else "")
    return resnet_head(cntk, x)


def resnet_of_bottlenecks(cntk, depths, widths, stride_1x1, stride_3x3):
    x = conv_bn_relu(cntk, features(cntk, 96), (7, 7), widths[0], strides=(2, 2), name="conv1.r")
    x = cntk.layers.MaxPooling((3, 3), strides=(2, 2), pad=True)(x)
    for stage, (depth, width) in enumerate(zip(depths, widths)):  # noqa: B905
        if stage:
            x = resnet_bottleneck_inc(cntk, x, 4 * width, width, stride_1x1, stride_3x3)
        else:
            x = resnet_bottleneck_inc(cntk, x, 4 * width, width, (1, 1), (1, 1))
        for block in range(1, depth):
            last = stage == 3 and block == depth - 1
            x = resnet_bottleneck(cntk, x, 4 * width, width, name="z.x.x.r" if last else "")
    return resnet_head(cntk, x)


def resnet_18(cntk):
    return resnet_of_basic(cntk, [2, 2, 2, 2], [2, 4, 8, 16])


def resnet_20(cntk):
    """What CNTK's own examples had for ResNet-18 at first: a block more in the last stage."""
    return resnet_of_basic(cntk, [2, 2, 2, 3], [1, 2, 4, 8])


def resnet_34(cntk):
    return resnet_of_basic(cntk, [3, 4, 6, 3], [1, 2, 4, 8])


def resnet_50(cntk):
    """The stride in the first, 1 by 1 convolution of a block, as in the paper."""
    return resnet_of_bottlenecks(cntk, [3, 4, 6, 3], [1, 2, 4, 8], (2, 2), (1, 1))


def resnet_50_stride_3x3(cntk):
    """The stride in the 3 by 3 convolution of a block, as in the reimplementations."""
    return resnet_of_bottlenecks(cntk, [3, 4, 6, 3], [1, 2, 4, 8], (1, 1), (2, 2))


def transfer(cntk, method, legacy):
    """The tutorial's model: a network from a file, cloned up to its last feature map, with a new head."""
    base = resnet_18(cntk)
    fill(base, np.random.RandomState(18))
    base = reloaded(cntk, base, legacy=legacy)
    last = cntk.combine([base.find_by_name("z.x.x.r").output])
    cloned = last.clone(method, {base.find_by_name("features"): cntk.placeholder(name="features")})
    model = cloned(features(cntk, 96) - cntk.layers.Constant(114))
    model = cntk.layers.GlobalAveragePooling(name="poolingLayer")(model)
    return cntk.layers.Dense(3, name="prediction")(cntk.layers.Dropout(0.5)(model))


def transfer_frozen(cntk):
    return transfer(cntk, cntk.CloneMethod.freeze, legacy=False)


def transfer_refined(cntk):
    """On a base of CNTK's first format, as its published networks were."""
    return transfer(cntk, cntk.CloneMethod.clone, legacy=True)


CASES = {
    "alexnet": alexnet,
    "inception": inception,
    "resnet_18": resnet_18,
    "resnet_20": resnet_20,
    "resnet_34": resnet_34,
    "resnet_50": resnet_50,
    "resnet_50_stride_3x3": resnet_50_stride_3x3,
    "transfer_frozen": transfer_frozen,
    "transfer_refined": transfer_refined,
    "vgg": vgg,
}
