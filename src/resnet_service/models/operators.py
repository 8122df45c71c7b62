"""The operators of ONNX that a network may use, each with the number of inputs that it needs at least.

OpenVINO's parser crashes on nodes that lack an input, so that files are checked against this table before it reads
them. The table has all operators of ONNX's own domain except those that no image classifier needs: control flow,
sequences, texts, random numbers, signals, losses, detection, and results whose size depends on values.
"""

from collections.abc import Mapping
from types import MappingProxyType

_BY_INPUTS = {
    0: """
        Constant
    """,
    1: """
        Abs Acos Acosh ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BitCast BitwiseNot Cast Ceil Celu Clip Concat
        ConstantOfShape Cos Cosh DepthToSpace Dropout DynamicQuantizeLinear Einsum Elu Erf Exp EyeLike Flatten Floor
        Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool HardSigmoid HardSwish Hardmax Identity IsInf IsNaN LRN
        LeakyRelu Log LogSoftmax LpNormalization LpPool Max MaxPool Mean MeanVarianceNormalization Min Mish Neg Not
        Pad Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
        ReduceSum ReduceSumSquare Relu Resize Round Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax
        Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sum Swish Tan Tanh ThresholdedRelu TopK Transpose Trilu
        Unsqueeze Upsample
    """,
    2: """
        Add AffineGrid And BitShift BitwiseAnd BitwiseOr BitwiseXor CastLike CausalConvWithState CenterCropPad Conv
        ConvInteger ConvTranspose CumProd CumSum DequantizeLinear Div Equal Expand Gather GatherElements GatherND
        Gemm Greater GreaterOrEqual GridSample LayerNormalization Less LessOrEqual MatMul MatMulInteger Mod Mul Or
        PRelu Pow QuantizeLinear RMSNormalization Reshape ReverseSequence Sub SwiGLU TensorScatter Tile Xor
    """,
    3: """
        Attention Col2Im DeformConv GRU GroupNormalization InstanceNormalization LSTM LinearAttention OneHot RNN Range
        RotaryEmbedding Scatter ScatterElements ScatterND Where
    """,
    5: """
        BatchNormalization
    """,
    8: """
        QLinearConv QLinearMatMul
    """,
}

LEAST_INPUTS: Mapping[bytes, int] = MappingProxyType(
    {name.encode(): count for count, names in _BY_INPUTS.items() for name in names.split()}
)
