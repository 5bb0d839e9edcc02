"""CNTK's operations by the numbers that stand in a file (its enumeration PrimitiveOpType)."""

_NAMES = """
    Negate Sigmoid Tanh ReLU Exp Log Sqrt Floor Abs Reciprocal Softmax Hardmax TransposeAxes Where Slice Dropout Reshape
    Pooling SumAll Plus Minus ElementTimes Equal NotEqual Less LessEqual Greater GreaterEqual PackedIndex GatherPacked
    ScatterPacked Times TransposeTimes Convolution SquaredError CrossEntropyWithSoftmax ClassificationError PastValue
    FutureValue ReduceElements BatchNormalization Clip Select Splice Combine RandomSample RandomSampleInclusionFrequency
    ROIPooling Logistic OptimizedRNNStack ReconcileDynamicAxis LogSoftmax LogPlus CosDistance Sin Cos Pass Block
    Unpooling LambdaRank NDCG EditDistanceError NoOp LabelsToGraph StopGradient ELU ForwardBackward
    CosDistanceWithNegativeSamples OneHot Pow ToSequence ToSequenceLike UnpackSequence Assign Gather StableSigmoid
    RandomDistribution Sinh Cosh UnpackBatch ToBatch Asin Acos Pad Crop Atanh Asinh TopK Squeeze ConstantOp
    LatticeSequenceWithSoftmax Cast EyeLikeOp CustomProxyOp StraightThrough Tan Atan ConvolutionSequenceShape
"""
OPERATIONS = dict(enumerate(_NAMES.split()))

BLOCK, COMBINE = "Block", "Combine"

# What training needs and a classification does not: measures of how far the network is off, which take the truth.
MEASURES = frozenset(
    {
        "SquaredError", "CrossEntropyWithSoftmax", "ClassificationError", "Logistic", "LambdaRank", "NDCG",
        "EditDistanceError", "CosDistance", "CosDistanceWithNegativeSamples", "ForwardBackward",
        "LatticeSequenceWithSoftmax",
    }
)  # fmt: skip
