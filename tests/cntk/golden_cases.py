"""Models of one operation each, or of a few that go together; see make_goldens.py. `cntk` is handed in."""

import tempfile

import golden_networks
import numpy as np


def image(cntk, *shape):
    return cntk.input_variable(shape or (3, 5, 7), name="x")


def vector(cntk, size=6):
    return cntk.input_variable((size,), name="x")


def parameter(cntk, *shape):
    return cntk.parameter(shape, init=0, name="w")


def positive(cntk, x):
    return cntk.plus(cntk.abs(x), 0.5)


def lrn(cntk):
    return cntk.local_response_normalization(image(cntk, 7, 3, 5), 2, 1.0, 0.4, 0.75, name="lrn")


def lrn_radius_1(cntk):
    return cntk.local_response_normalization(image(cntk, 6, 3, 5), 1, 2.0, 0.1, 0.5, name="lrn")


def lrn_example(cntk):
    return golden_networks.lrn_layer(cntk, 1.0, 2, 0.4, 0.75, name="lrn")(image(cntk, 7, 3, 5))


def splice(cntk):
    x = image(cntk)
    y = cntk.relu(x)
    return cntk.combine(
        [
            cntk.splice(x, y, axis=0, name="channels"),
            cntk.splice(x, y, cntk.abs(x), axis=0, name="channels_of_three"),
            cntk.splice(x, y, axis=1, name="rows"),
            cntk.splice(x, y, axis=-1, name="columns"),
            cntk.splice(cntk.slice(x, 0, 0, 1), y, axis=0, name="unequal"),
        ]
    )


def convolution_bias(cntk):
    layer = cntk.layers.Convolution2D((3, 5), 4, strides=(2, 1), pad=False, activation=cntk.relu, name="conv")
    return layer(image(cntk, 3, 9, 11))


def convolution_bias_pad(cntk):
    layer = cntk.layers.Convolution2D((5, 3), 4, strides=(2, 3), pad=True, name="conv")
    return layer(image(cntk, 3, 9, 11))


def convolution_groups(cntk):
    """Two groups as in the AlexNet of two devices, strided; and one group per channel."""
    x = image(cntk, 4, 7, 9)
    y = cntk.convolution(parameter(cntk, 6, 2, 3, 3), x, strides=(2, 2), auto_padding=[False, True, True], groups=2)
    grouped = cntk.plus(y, cntk.parameter((6, 1, 1), init=0, name="b"), name="grouped")
    deep = cntk.convolution(
        parameter(cntk, 4, 1, 3, 3), x, auto_padding=[False, True, True], groups=4, name="per_channel"
    )
    return cntk.combine([grouped, deep])


def dilate(kernel, rows, columns):
    """The kernel with zeros in between that does without dilation what this one does with it."""
    outputs, inputs, height, width = kernel.shape
    wide = np.zeros((outputs, inputs, (height - 1) * rows + 1, (width - 1) * columns + 1), dtype=kernel.dtype)
    wide[:, :, ::rows, ::columns] = kernel
    return wide


def convolution_dilated(cntk):
    """CNTK on the CPU has no dilation: computed with kernels that have zeros in between."""

    def build(dilation, kernels):
        x = image(cntk, 2, 9, 11)
        nodes = []
        for name, size, pad, strides in [
            ("padded", (3, 3), True, (1, 1)),
            ("valid", (3, 3), False, (1, 1)),
            ("uneven", (3, 2), True, (2, 1)),
        ]:
            kernel = (
                cntk.parameter(kernels[name].shape, init=kernels[name]) if kernels else parameter(cntk, 3, 2, *size)
            )
            node = cntk.convolution(
                kernel, x, strides, auto_padding=[False, pad, pad], dilation=dilation[name], name=name
            )
            nodes.append(node)
        return cntk.combine(nodes)

    dilation = {"padded": (2, 2), "valid": (2, 2), "uneven": (1, 3)}

    def twin(loaded):
        kernels = {kernel.uid: kernel.value for kernel in loaded.parameters}
        wide = {}
        for node in [output.owner for output in loaded.outputs]:
            wide[node.name] = dilate(kernels[node.inputs[0].uid], *dilation[node.name])
        return build(dict.fromkeys(dilation, (1, 1)), wide)

    return build(dilation, None), twin


def convolution_pad_axes(cntk):
    """Padding of the rows alone; of an even kernel with stride 2; of all axes, as is the default for one channel."""
    x = image(cntk, 3, 7, 8)
    return cntk.combine(
        [
            cntk.layers.Convolution2D((3, 3), 2, pad=(True, False), name="rows")(x),
            cntk.layers.Convolution2D((4, 2), 2, strides=2, pad=True, bias=False, name="even")(x),
            cntk.convolution(parameter(cntk, 2, 1, 3, 3), cntk.slice(x, 0, 0, 1), name="default"),
        ]
    )


def convolution_no_depth(cntk):
    """A grey image without a channel axis, and a result without one."""
    x = image(cntk, 7, 9)
    y = cntk.layers.Convolution2D((3, 3), 4, reduction_rank=0, pad=True, name="from_grey")(x)
    return cntk.layers.Convolution2D((3, 3), pad=True, name="to_grey")(y)


def convolution_1d_3d(cntk):
    flat = cntk.input_variable((3, 11), name="flat")
    deep = cntk.input_variable((2, 3, 5, 4), name="deep")
    return cntk.combine(
        [
            cntk.layers.Convolution1D(3, 4, pad=True, strides=2, name="one")(flat),
            cntk.layers.Convolution3D((3, 3, 2), 2, pad=True, name="three")(deep),
        ]
    )


def convolution_transposed(cntk):
    x = image(cntk, 3, 4, 5)
    layer = cntk.layers.ConvolutionTranspose2D
    return cntk.combine(
        [
            layer((3, 3), 2, name="valid")(x),
            layer((3, 3), 2, strides=2, name="valid_by_2")(x),
            layer((3, 3), 2, strides=2, pad=True, name="padded_by_2")(x),
            layer((4, 4), 2, strides=2, pad=True, bias=False, output_shape=(8, 10), name="doubled")(x),
            layer((3, 3), 2, strides=2, pad=True, bias=False, output_shape=(8, 10), name="doubled_odd")(x),
            layer((5, 3), 2, strides=(2, 3), pad=(True, False), bias=False, name="mixed")(x),
        ]
    )


def convolution_padded(cntk):
    """Numbers of padding instead of automatic padding, which no function of Python's gives, but the format has."""

    def change(data):
        for name, numbers in [(b"lowerPad", b"\1\2\0"), (b"upperPad", b"\1\0\0")]:
            start = data.index(name)
            start = data.index(b"\3\0\0\0", start) + 1
            data = data[:start] + numbers + data[start + 3 :]
        return data

    x = image(cntk, 2, 7, 9)
    return golden_networks.reloaded(cntk, cntk.layers.Convolution2D((3, 3), 3, strides=2, name="conv")(x), change)


def convolution_transposed_padded(cntk):
    from cntk.internal import typemap

    x = image(cntk, 2, 4, 5)
    transposed = typemap(cntk.cntk_py.convolution_transpose)
    kernels = [parameter(cntk, 2, 3, 4, 4), parameter(cntk, 2, 3, 3, 3)]
    return cntk.combine(
        [
            transposed(kernels[0], x, (2, 2, 2), [True], [1, 1, 0], [1, 1, 0], (0,), (1,), 0, "doubled"),
            transposed(kernels[1], x, (2, 2, 2), [True], [1, 0, 0], [0, 1, 0], (0,), (1,), 0, "uneven"),
        ]
    )


def legacy(cntk):
    """A model of CNTK's first format, loaded and saved in the second: flat, and some attributes are missing."""
    layers = cntk.layers
    x = cntk.input_variable((3, 15, 17), name="features")
    y = layers.Convolution2D((3, 3), 4, pad=True, strides=2, bias=False)(cntk.minus(x, cntk.constant(114)))
    y = cntk.relu(layers.BatchNormalization(map_rank=1)(y), name="conv1.r")
    y = layers.MaxPooling((3, 3), strides=2, pad=True, name="pool1")(y)
    y = layers.Convolution2D((3, 3), 4, pad=True, name="conv2")(y)
    y = layers.AveragePooling((4, 5), name="z.x")(cntk.sigmoid(y, name="z.x.x.r"))
    return golden_networks.reloaded(cntk, layers.Dense(3, name="z")(y), legacy=True)


def from_onnx(cntk):
    """A model that CNTK imported: the batch is an axis like any other, packed and unpacked around each operation."""
    x = image(cntk)
    y = cntk.layers.Convolution2D((3, 3), 2, pad=True, activation=cntk.relu)(x)
    z = cntk.layers.Dense(3)(cntk.layers.MaxPooling((3, 3), strides=2, pad=True)(y))
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        z.save(file.name, format=cntk.ModelFormat.ONNX)
        return cntk.Function.load(file.name, format=cntk.ModelFormat.ONNX), "UnpackBatch, ToBatch"


def activations(cntk):
    x = image(cntk)
    return cntk.combine(
        [
            cntk.relu(x, name="relu"),
            cntk.leaky_relu(x, name="leaky_relu"),
            cntk.leaky_relu(x, 0.3, name="leaky_relu_3"),
            cntk.elu(x, name="elu"),
            cntk.elu(x, alpha=0.4, name="elu_4"),
            cntk.selu(x, name="selu"),
            cntk.sigmoid(x, name="sigmoid"),
            cntk.tanh(x, name="tanh"),
            cntk.hard_sigmoid(x, 0.4, 0.6, name="hard_sigmoid"),
            cntk.softplus(x, name="softplus"),
            cntk.softplus(x, steepness=3, name="softplus_3"),
            cntk.softsign(x, name="softsign"),
            cntk.clip(x, -0.5, 1.0, name="clip"),
        ]
    )


def param_relu(cntk):
    x = image(cntk)
    return cntk.combine(
        [
            cntk.param_relu(parameter(cntk, 3, 1, 1), x, name="per_channel"),
            cntk.param_relu(parameter(cntk, 3, 5, 7), x, name="per_element"),
            cntk.param_relu(parameter(cntk), x, name="shared"),
        ]
    )


def unary(cntk):
    x = image(cntk, 2, 3, 5)
    y = positive(cntk, x)
    return cntk.combine(
        [
            cntk.exp(x, name="exp"),
            cntk.log(y, name="log"),
            cntk.sqrt(y, name="sqrt"),
            cntk.square(x, name="square"),
            cntk.abs(x, name="abs"),
            cntk.negate(x, name="negate"),
            cntk.reciprocal(y, name="reciprocal"),
            cntk.floor(x, name="floor"),
            cntk.ceil(x, name="ceil"),
            cntk.round(x, name="round"),
            cntk.sin(x, name="sin"),
            cntk.cos(x, name="cos"),
            cntk.tan(cntk.clip(x, -1, 1), name="tan"),
            cntk.sinh(x, name="sinh"),
            cntk.cosh(x, name="cosh"),
            cntk.asin(cntk.clip(x, -0.9, 0.9), name="asin"),
            cntk.acos(cntk.clip(x, -0.9, 0.9), name="acos"),
            cntk.atan(x, name="atan"),
            cntk.asinh(x, name="asinh"),
            cntk.atanh(cntk.clip(x, -0.9, 0.9), name="atanh"),
        ]
    )


def binary(cntk):
    x = cntk.input_variable((2, 3, 5), name="x")
    y = cntk.input_variable((2, 3, 5), name="y")
    return cntk.combine(
        [
            cntk.plus(x, y, name="plus"),
            cntk.minus(x, y, name="minus"),
            cntk.element_times(x, y, name="times"),
            cntk.element_divide(x, positive(cntk, y), name="divide"),
            cntk.pow(positive(cntk, x), y, name="pow"),
            cntk.element_max(x, y, name="max"),
            cntk.element_min(x, y, name="min"),
            cntk.element_max(x, y, cntk.negate(x), name="max_of_three"),
            cntk.log_add_exp(x, y, name="log_add_exp"),
            cntk.less(x, y, name="less"),
            cntk.less_equal(x, y, name="less_equal"),
            cntk.greater(x, y, name="greater"),
            cntk.greater_equal(x, y, name="greater_equal"),
            cntk.equal(x, y, name="equal"),
            cntk.not_equal(x, y, name="not_equal"),
            cntk.element_select(cntk.greater(x, 0), x, y, name="select"),
        ]
    )


def broadcast(cntk):
    """Parameters of lower rank are aligned at the last axes; both orders of the operands."""
    x = image(cntk, 3, 5, 7)
    return cntk.combine(
        [
            cntk.plus(x, parameter(cntk, 3, 1, 1), name="plus_channels"),
            cntk.minus(parameter(cntk, 3, 1, 1), x, name="channels_minus"),
            cntk.element_times(x, parameter(cntk), name="times_scalar"),
            cntk.element_times(x, parameter(cntk, 1), name="times_one"),
            cntk.element_divide(x, positive(cntk, parameter(cntk, 1, 5, 1)), name="divide_rows"),
            cntk.minus(x, parameter(cntk, 7), name="minus_columns"),
            cntk.minus(x, parameter(cntk, 5, 7), name="minus_plane"),
            cntk.plus(x, parameter(cntk, 3, 5, 7), name="plus_full"),
            cntk.plus(cntk.slice(x, 0, 0, 1), x, name="first_plus_all"),
            cntk.minus(x, cntk.constant(114), name="minus_constant"),
            cntk.minus(x, cntk.constant(np.arange(3, dtype=np.float32).reshape(3, 1, 1)), name="minus_constants"),
            cntk.plus(cntk.reduce_sum(x, axis=(1, 2), keepdims=False), parameter(cntk, 4, 1), name="rank_up"),
        ]
    )


def reductions(cntk):
    x = image(cntk, 3, 5, 7)
    y = cntk.element_divide(x, 2.0)
    return cntk.combine(
        [
            cntk.reduce_sum(x, axis=0, name="sum_0"),
            cntk.reduce_sum(x, axis=0, keepdims=False, name="sum_0_dropped"),
            cntk.reduce_mean(x, axis=1, name="mean_1"),
            cntk.reduce_mean(x, axis=-1, keepdims=False, name="mean_last_dropped"),
            cntk.reduce_mean(x, axis=(1, 2), name="mean_12"),
            cntk.reduce_mean(x, axis=(1, 2), keepdims=False, name="mean_12_dropped"),
            cntk.reduce_max(x, axis=(0, 2), keepdims=False, name="max_02_dropped"),
            cntk.reduce_min(x, axis=2, name="min_2"),
            cntk.reduce_prod(y, axis=(0, 1), name="prod_01"),
            cntk.reduce_log_sum_exp(x, axis=0, name="log_sum_exp_0"),
            cntk.reduce_l1(x, axis=0, name="l1_0"),
            cntk.reduce_l2(x, axis=(1, 2), keepdims=False, name="l2_12"),
            cntk.reduce_sum_square(x, axis=1, name="sum_square_1"),
            cntk.argmax(x, axis=0, name="argmax_0"),
            cntk.argmin(x, axis=2, name="argmin_2"),
        ]
    )


def reductions_all(cntk):
    """Over the whole sample, which CNTK gives one value of no axis at all, whatever it says of keeping dimensions."""
    x = image(cntk, 2, 3, 5)
    return cntk.combine(
        [
            cntk.reduce_sum(x, name="sum"),
            cntk.reduce_mean(x, name="mean"),
            cntk.reduce_max(x, axis=cntk.Axis.all_static_axes(), name="max"),
            cntk.reduce_min(x, name="min"),
            cntk.reduce_prod(x, name="prod"),
            cntk.reduce_log_sum_exp(x, name="log_sum_exp"),
            cntk.minus(x, cntk.reduce_mean(x), name="centred"),
            cntk.reduce_mean(x, axis=(0, 1, 2), keepdims=False, name="mean_of_three"),
            cntk.reduce_mean(x, axis=(0, 1, 2), name="mean_of_three_kept"),
        ]
    )


def softmax_axes(cntk):
    x = image(cntk, 3, 5, 4)
    return cntk.combine(
        [
            cntk.softmax(x, axis=0, name="softmax_0"),
            cntk.softmax(x, axis=1, name="softmax_1"),
            cntk.softmax(x, axis=2, name="softmax_2"),
            cntk.softmax(x, axis=-1, name="softmax_last"),
            cntk.log_softmax(x, name="log_softmax"),
            cntk.log_softmax(x, axis=0, name="log_softmax_0"),
        ]
    )


def softmax_vector(cntk):
    x = vector(cntk)
    return cntk.combine(
        [
            cntk.softmax(x, name="softmax"),
            cntk.log_softmax(x, name="log_softmax"),
            cntk.softmax(x, axis=0, name="softmax_0"),
            cntk.hardmax(x, name="hardmax"),
        ]
    )


def times(cntk):
    x = image(cntk, 3, 5, 7)
    v = cntk.slice(cntk.slice(x, 0, 0, 1), 1, 0, 1)
    flat = cntk.reshape(v, (7,))
    return cntk.combine(
        [
            cntk.times(flat, parameter(cntk, 7, 4), name="vector_matrix"),
            cntk.times(x, parameter(cntk, 7, 4), name="last_axis"),
            cntk.times(x, parameter(cntk, 3, 5, 7, 4), name="all_axes"),
            cntk.times(x, parameter(cntk, 5, 7, 4), name="last_two_axes"),
            cntk.times(flat, parameter(cntk, 7, 2, 3), output_rank=2, name="to_rank_2"),
            cntk.times(parameter(cntk, 4, 7), cntk.reshape(flat, (7, 1)), name="matrix_column"),
            cntk.times(parameter(cntk, 4, 3), x, output_rank=2, name="matrix_image"),
            cntk.times_transpose(flat, parameter(cntk, 4, 7), name="vector_transposed"),
        ]
    )


def dense(cntk):
    x = image(cntk, 3, 4, 5)
    flat = cntk.layers.Dense(6, activation=cntk.relu, name="flat")(x)
    return cntk.combine(
        [
            cntk.layers.Dense(4, name="second")(flat),
            cntk.layers.Dense((2, 3), bias=False, name="to_rank_2")(flat),
            cntk.layers.Dense(4, map_rank=1, name="per_channel")(x),
            cntk.layers.Dense(4, input_rank=1, name="last_axis")(x),
        ]
    )


def transpose(cntk):
    x = image(cntk, 2, 3, 5)
    return cntk.combine(
        [
            cntk.transpose(x, (1, 2, 0), name="hwc"),
            cntk.transpose(x, (2, 0, 1), name="rolled"),
            cntk.swapaxes(x, 0, 2, name="swapped"),
        ]
    )


def slices(cntk):
    x = image(cntk, 4, 7, 9)
    return cntk.combine(
        [
            cntk.slice(x, 0, 1, 3, name="channels"),
            cntk.slice(x, 1, -3, -1, name="rows_from_the_end"),
            cntk.slice(x, -1, 2, 0, name="columns_to_the_end"),
            cntk.slice(x, 1, 0, 7, 2, name="every_second_row"),
            cntk.slice(x, 2, 1, 8, 3, name="every_third_column"),
            cntk.slice(x, 2, 0, 9, -1, name="columns_reversed"),
            cntk.slice(x, 1, 1, 6, -2, name="rows_reversed_by_2"),
            cntk.slice(x, [1, 2], [1, 2], [5, -1], name="window"),
            cntk.slice(x, [0, 1, 2], [0, 1, 0], [4, 7, 9], [2, 3, -1], name="window_by"),
        ]
    )


def reshapes(cntk):
    x = image(cntk, 2, 3, 4)
    return cntk.combine(
        [
            cntk.reshape(x, (4, 6), name="all"),
            cntk.reshape(x, (3, -1), name="inferred"),
            cntk.reshape(x, (-1,), name="flat"),
            cntk.reshape(x, (6,), begin_axis=0, end_axis=2, name="first_two"),
            cntk.reshape(x, (2, 2), begin_axis=2, name="last_split"),
            cntk.reshape(x, (12,), begin_axis=1, name="last_two"),
            cntk.reshape(x, (-1,), begin_axis=-3, end_axis=-1, name="negative_axes"),
            cntk.reshape(x, (1,), begin_axis=0, end_axis=0, name="leading_one"),
            cntk.reshape(x, (1, 1), begin_axis=cntk.Axis.new_leading_axis(), name="trailing_ones"),
            cntk.flatten(x, name="flatten"),
            cntk.flatten(x, axis=1, name="flatten_1"),
            cntk.expand_dims(x, 1, name="expanded"),
            cntk.expand_dims(x, -1, name="expanded_last"),
            cntk.squeeze(cntk.reshape(x, (1, 6, 1, 4)), name="squeezed"),
            cntk.squeeze(cntk.reshape(x, (1, 6, 1, 4)), axes=[2], name="squeezed_2"),
        ]
    )


def pads(cntk):
    x = image(cntk, 2, 3, 5)
    pattern = [(0, 0), (1, 2), (2, 1)]
    return cntk.combine(
        [
            cntk.pad(x, pattern, mode=cntk.ops.CONSTANT_PAD, name="zeros"),
            cntk.pad(x, pattern, mode=cntk.ops.CONSTANT_PAD, constant_value=1.5, name="constant"),
            cntk.pad(x, pattern, mode=cntk.ops.REFLECT_PAD, name="reflect"),
            cntk.pad(x, [(1, 1), (0, 0), (0, 0)], name="channels"),
        ]
    )


def pad_symmetric(cntk):
    x = image(cntk, 2, 3, 5)
    return cntk.pad(x, [(0, 0), (1, 2), (3, 0)], mode=cntk.ops.SYMMETRIC_PAD, name="z"), "Pad in the mode symmetric"


def crop(cntk):
    x = cntk.input_variable((2, 6, 8), name="x")
    like = cntk.input_variable((1, 3, 4), name="like")
    return cntk.crop_manual(x, like, 2, 1, name="crop")


def pooling(cntk):
    x = image(cntk, 2, 7, 10)
    maximum, average = cntk.MAX_POOLING, cntk.AVG_POOLING
    pad = [False, True, True]
    return cntk.combine(
        [
            cntk.layers.MaxPooling((3, 2), strides=(2, 3), name="max_uneven")(x),
            cntk.layers.MaxPooling((3, 3), strides=2, pad=(True, False), name="max_pad_rows")(x),
            cntk.layers.AveragePooling((3, 3), strides=2, pad=(False, True), name="mean_pad_columns")(x),
            cntk.pooling(x, maximum, (3, 3), (2, 2), [False], ceil_out_dim=True, name="max_ceil"),
            cntk.pooling(x, average, (3, 3), (2, 2), [False], ceil_out_dim=True, name="mean_ceil"),
            cntk.pooling(x, maximum, (2, 2), (3, 3), [False], ceil_out_dim=True, name="max_ceil_gaps"),
            cntk.pooling(x, average, (3, 3), (1, 1), pad, include_pad=True, name="mean_with_pad"),
            cntk.pooling(x, average, (3, 3), (2, 2), pad, include_pad=True, name="mean_with_pad_by_2"),
            cntk.pooling(x, average, (4, 4), (2, 2), pad, include_pad=True, name="mean_with_pad_even"),
            cntk.pooling(x, average, (3, 3), (2, 2), [False], True, True, name="mean_with_pad_ceil"),
            cntk.pooling(x, maximum, (2, 3, 3), (1, 2, 2), [False], name="max_over_channels"),
        ]
    )


def pooling_padded(cntk):
    """Numbers of padding instead of automatic padding, which a model has that was imported; axes in reverse."""
    from cntk.internal import typemap

    x = image(cntk, 2, 7, 9)
    pool = typemap(cntk.cntk_py.pooling)
    maximum, average = cntk.MAX_POOLING, cntk.AVG_POOLING
    return cntk.combine(
        [
            pool(x, maximum, (3, 3), (2, 2), [1, 1], [1, 1], False, False, "max"),
            pool(x, average, (3, 3), (2, 2), [1, 1], [1, 1], False, False, "mean"),
            pool(x, average, (3, 3), (2, 2), [1, 1], [1, 1], False, True, "mean_with_pad"),
            pool(x, maximum, (3, 3), (2, 2), [1, 0], [1, 2], False, False, "max_uneven"),
            pool(x, average, (3, 3), (2, 2), [2, 0], [1, 1], False, True, "mean_with_pad_uneven"),
            pool(x, maximum, (3, 3), (2, 2), [1, 0], [0, 1], True, False, "max_ceil"),
            pool(x, average, (3, 3), (2, 2), [0, 1], [0, 0], True, True, "mean_with_pad_ceil"),
        ]
    )


def pooling_global(cntk):
    x = image(cntk, 3, 5, 7)
    return cntk.combine(
        [
            cntk.layers.GlobalAveragePooling(name="mean")(x),
            cntk.layers.GlobalMaxPooling(name="max")(x),
        ]
    )


def unpooling(cntk):
    x = image(cntk, 2, 4, 6)
    pooled = cntk.layers.MaxPooling((2, 2), strides=2, name="pooled")(x)
    twice = cntk.element_times(pooled, 2)
    return cntk.layers.MaxUnpooling((2, 2), strides=2, name="unpooled")(twice, x), "Unpooling"


def shuffles(cntk):
    x = image(cntk, 8, 2, 4)
    return cntk.combine([cntk.depth_to_space(x, 2, name="to_space"), cntk.space_to_depth(x, 2, name="to_depth")])


def dropout(cntk):
    x = image(cntk)
    return cntk.dropout(cntk.layers.Dropout(0.5, name="layer")(cntk.relu(x)), 0.3, name="primitive")


def batch_normalisation(cntk):
    """Per channel; per element; of a vector, as after a Dense; per channel by CNTK's own engine, other epsilon."""
    layer = cntk.layers.BatchNormalization
    x = image(cntk, 3, 4, 5)
    y = cntk.layers.Dense(6, name="dense")(x)
    return cntk.combine(
        [
            layer(map_rank=1, name="channels")(x),
            layer(name="elements")(x),
            layer(name="vector")(y),
            layer(map_rank=1, name="vector_spatial")(y),
            layer(map_rank=1, use_cntk_engine=True, epsilon=0.1, blend_time_constant=1000, name="own_engine")(x),
        ]
    )


def normalisations(cntk):
    x = image(cntk, 3, 4, 5)
    return cntk.combine(
        [
            cntk.layers.LayerNormalization(name="layer")(x),
            cntk.mean_variance_normalization(x, name="per_channel"),
            cntk.mean_variance_normalization(x, 0.1, True, name="per_sample"),
            cntk.mean_variance_normalization(x, use_stats_across_channels=True, do_variance_scaling=False, name="mean"),
            cntk.ops.image_scaler(x, 0.5, [1.0, 2.0, 3.0], name="scaler"),
            cntk.per_dim_mean_variance_normalize(
                x,
                cntk.constant(np.full((3, 4, 5), 0.5, dtype=np.float32)),
                cntk.constant(np.full((3, 4, 5), 2.0, dtype=np.float32)),
                name="per_element",
            ),
        ]
    )


def passes(cntk):
    x = image(cntk)
    y = cntk.stop_gradient(cntk.relu(x), name="stopped")
    return cntk.alias(cntk.layers.identity(y), name="aliased")


def ones_and_gather(cntk):
    x = vector(cntk)
    return cntk.combine(
        [
            cntk.plus(cntk.ones_like(x), x, name="plus_ones"),
            cntk.plus(cntk.zeros_like(x), x, name="plus_zeros"),
            cntk.cast(cntk.cast(x, np.float64), np.float32, name="cast_twice"),
        ]
    )


def criteria(cntk):
    """The root that BrainScript leaves: loss, error and the network in one, with the labels as a second input."""
    x = cntk.input_variable((3, 5, 7), name="features")
    labels = cntk.input_variable((4,), name="labels")
    z = cntk.layers.Dense(4, name="z")(cntk.layers.Convolution2D((3, 3), 2, activation=cntk.relu, name="c")(x))
    loss = cntk.cross_entropy_with_softmax(z, labels, name="ce")
    error = cntk.classification_error(z, labels, name="errs")
    top5 = cntk.classification_error(z, labels, topN=2, name="top2Errs")
    return cntk.combine([loss, error, top5, z])


def criteria_only(cntk):
    """A training criterion alone: its first output is a loss, and no network is the root."""
    x = vector(cntk)
    labels = cntk.input_variable((4,), name="labels")
    z = cntk.layers.Dense(4, name="z")(x)
    loss = cntk.squared_error(cntk.softmax(z, name="p"), labels, name="loss")
    return cntk.combine([loss, cntk.binary_cross_entropy(cntk.sigmoid(z, name="s"), labels, name="logistic")])


def blocks_nested(cntk):
    """Blocks in blocks, with names inside that the graph outside does not see, and a block used twice."""

    @cntk.BlockFunction("Inner", "inner")
    def inner(x, y):
        return cntk.relu(cntk.minus(x, y), name="inside")

    layer = cntk.layers.Convolution2D((3, 3), 3, pad=True, name="shared")

    @cntk.BlockFunction("Outer", "outer")
    def outer(x):
        return cntk.plus(inner(layer(x), x), layer(cntk.relu(x)), name="sum")

    x = image(cntk)
    return cntk.plus(outer(x), layer(x), name="z")


def block_swapped(cntk):
    """A block whose arguments come in another order than its body meets them, and with one used twice."""
    a, b = cntk.placeholder(name="a"), cntk.placeholder(name="b")
    x = cntk.input_variable((2, 3), name="x")
    y = cntk.input_variable((2, 3), name="y")
    block = cntk.as_block(cntk.minus(cntk.element_times(b, b), a), [(a, x), (b, y)], "Odd", "odd")
    other = cntk.as_block(cntk.minus(a, cntk.element_times(b, 2)), [(a, y), (b, x)], "Odd", "even")
    return cntk.splice(block, other, axis=0, name="both")


def sequential(cntk):
    layers = cntk.layers
    with cntk.default_options(activation=cntk.relu, pad=True):
        model = layers.Sequential(
            [
                layers.For(
                    range(2),
                    lambda i: [
                        layers.Convolution2D((3, 3), [2, 4][i], name="conv" + str(i)),
                        layers.MaxPooling((3, 3), strides=(2, 2), name="pool" + str(i)),
                    ],
                ),
                layers.Dense(6, name="hidden"),
                layers.Dropout(0.5, name="drop"),
                layers.Dense(4, activation=None, name="last"),
            ]
        )
    return model(cntk.minus(cntk.input_variable((3, 15, 17), name="features"), cntk.constant(114)))


def sequential_block(cntk):
    """A residual block of the layers library, and one of the model's own: names inside blocks are not nodes."""
    layers = cntk.layers
    inner = layers.Sequential([layers.Convolution2D((3, 3), 3, pad=True, name="conv"), cntk.relu])

    residual, dense = layers.ResNetBlock(inner), layers.Dense(4, name="inside")

    @cntk.BlockFunction("Body", "body")
    def body(x):
        return dense(residual(x))

    return body(image(cntk))


def shared_branches(cntk):
    """One tower over two inputs."""
    tower = cntk.layers.Sequential([cntk.layers.Dense(4, activation=cntk.tanh), cntk.layers.Dense(3)])
    left = cntk.input_variable((6,), name="left")
    right = cntk.input_variable((6,), name="right")
    return cntk.minus(tower(left), tower(right), name="difference")


def clone_frozen(cntk):
    """Frozen weights become constants."""
    x = image(cntk)
    base = cntk.layers.Sequential([cntk.layers.Convolution2D((3, 3), 2, name="conv"), cntk.layers.Dense(4, name="z")])
    model = base(x)
    for parameter_ in model.parameters:
        value = np.linspace(-0.3, 0.4, int(np.prod(parameter_.shape)), dtype=np.float32)
        parameter_.value = value.reshape(parameter_.shape)
    new = cntk.input_variable((3, 5, 7), name="features")
    return model.clone(cntk.CloneMethod.freeze, {x: cntk.minus(new, cntk.constant(100))})


def free_size(cntk):
    """A fully convolutional network for images of any size; computed at 17 by 17."""
    x = cntk.input_variable((3, cntk.FreeDimension, cntk.FreeDimension), name="x")
    y = cntk.layers.Convolution2D((3, 3), 4, pad=True, strides=2, activation=cntk.relu, name="conv")(x)
    y = cntk.layers.MaxPooling((3, 3), strides=2, name="pool")(y)
    return cntk.reduce_mean(y, axis=(1, 2), name="mean")


def scalar_input(cntk):
    x = cntk.input_variable((), name="x")
    return cntk.plus(cntk.element_times(x, 3), 1, name="y")


def no_name(cntk):
    """Not a name anywhere, neither of the input nor of any node."""
    x = cntk.input_variable((3, 5, 7))
    return cntk.layers.Dense(4)(cntk.layers.Convolution2D((3, 3), 2)(x))


def half(cntk):
    """Weights of 16 bits (which CNTK writes as 32), statistics of 32, as its training in half precision leaves them.

    CNTK on the CPU has no convolution of 16 bits: computed in 32 bits from the same weights.
    """

    def build(dtype):
        with cntk.default_options(dtype=dtype):
            x = cntk.input_variable((3, 5, 7), dtype=dtype, name="x")
            y = cntk.layers.Convolution2D((3, 3), 2, name="conv")(x)
            y = cntk.layers.BatchNormalization(map_rank=1, name="bn")(y)
            return cntk.layers.Dense(3, name="z")(y)

    def twin(loaded):
        other = build(np.float32)
        for target, source in zip(other.parameters, loaded.parameters):  # noqa: B905
            target.value = source.value.astype(np.float32)
        for target, source in zip(other.constants, loaded.constants):  # noqa: B905
            target.value = source.value.astype(np.float32)
        return other

    return build(np.float16), twin


def half_dense(cntk):
    with cntk.default_options(dtype=np.float16):
        x = cntk.input_variable((6,), dtype=np.float16, name="x")
        return cntk.layers.Dense(3, activation=cntk.relu, name="z")(x)


def sequence_input(cntk):
    return cntk.sequence.input_variable((4,), name="x")


def past_value(cntk):
    x = sequence_input(cntk)
    return cntk.plus(cntk.sequence.past_value(x), cntk.sequence.future_value(x), name="z"), "PastValue, FutureValue"


def recurrence(cntk):
    return cntk.layers.Recurrence(cntk.layers.LSTM(3), name="z")(sequence_input(cntk)), "PastValue"


def sequence_ends(cntk):
    x = sequence_input(cntk)
    return cntk.plus(cntk.sequence.last(x), cntk.sequence.first(x), name="z"), "sequence operations"


def sequence_made(cntk):
    return cntk.to_sequence(image(cntk, 4, 3), name="z"), "ToSequence"


def sequence_unpacked(cntk):
    return cntk.sequence.unpack(sequence_input(cntk), 0, no_mask_output=True, name="z"), "UnpackSequence"


def sequence_reduced(cntk):
    return cntk.sequence.reduce_sum(sequence_input(cntk), name="z"), "ReduceElements over the sequence"


def batch_reduced(cntk):
    return cntk.reduce_mean(vector(cntk), axis=cntk.Axis.default_batch_axis(), name="z"), "mean over the batch"


def rnn_stack(cntk):
    w = cntk.parameter((cntk.InferredDimension, 3), init=cntk.glorot_uniform(), name="w")
    return cntk.optimized_rnnstack(sequence_input(cntk), w, 3, 1, name="z"), "OptimizedRNNStack"


def roi_pooling(cntk):
    x = image(cntk, 2, 6, 6)
    rois = cntk.input_variable((3, 4), name="rois")
    return cntk.roipooling(x, rois, cntk.MAX_POOLING, (2, 2), 0.5, name="z"), "ROIPooling"


def random_noise(cntk):
    x = vector(cntk)
    return cntk.plus(x, cntk.random.normal_like(x), name="z"), "RandomDistribution"


def assign(cntk):
    return cntk.assign(cntk.parameter((6,), name="w"), cntk.parameter((6,), name="w"), name="z"), "Assign"


def one_hot(cntk):
    x = vector(cntk, 1)
    return cntk.one_hot(cntk.reshape(x, (1,)), 5, name="z"), "OneHot"


def gather(cntk):
    return cntk.gather(parameter(cntk, 5, 3), vector(cntk, 2), name="z"), "Gather"


def top_k(cntk):
    return cntk.top_k(vector(cntk), 2, name="z"), "TopK"


def cosine(cntk):
    x = vector(cntk)
    return cntk.cosine_distance(x, cntk.relu(x), name="z"), "CosDistance"


def batch_unpacked(cntk):
    return cntk.to_batch(cntk.unpack_batch(vector(cntk)), name="z"), "UnpackBatch, ToBatch"


def user_function(cntk):
    class Doubled(cntk.ops.functions.UserFunction):
        def __init__(self, arg, name="doubled"):
            cntk.ops.functions.UserFunction.__init__(self, [arg], name=name)

        def infer_outputs(self):
            return [cntk.output_variable(self.inputs[0].shape, self.inputs[0].dtype, self.inputs[0].dynamic_axes)]

        def forward(self, argument, device=None, outputs_to_retain=None):
            return None, argument * 2

        def backward(self, state, root_gradients):
            return root_gradients * 2

        def serialize(self):
            return {"factor": 2.0}

    return cntk.layers.Dense(3, name="z")(cntk.user_function(Doubled(vector(cntk)))), "a user-defined function"


def native_function(cntk):
    cntk.ops.register_native_user_function(
        "NativeUserTimesOp", "Cntk.ExtensibilityExamples-2.7", "CreateUserTimesFunction"
    )
    x = vector(cntk)
    w = cntk.parameter((6, 3), init=0, name="w")
    return cntk.ops.native_user_function(
        "NativeUserTimesOp", [x, w], {"padding": 0}, "native_times"
    ), "a native function"


NO_CASES = ("image", "vector", "parameter", "positive", "dilate", "sequence_input")
CASES = {name: case for name, case in sorted(globals().items()) if callable(case) and name not in NO_CASES}
