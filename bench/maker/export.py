"""Networks with random weights, exported by PyTorch (opset 17, the tracing exporter)."""

import torch

from . import nets

BATCH = {0: "batch"}
SEQUENCE = {0: "batch", 1: "sequence"}
IMAGES = {"input": torch.zeros(1, 3, 224, 224)}
SAME = {"input": BATCH, "output": BATCH}
TOKENS = ("input_ids", "attention_mask", "token_type_ids")

# name: (network, example inputs, dynamic axes of inputs and outputs, in the order of the outputs)
RECIPES = {
    "resnet18": (lambda: nets.ResNet(nets.BasicBlock, (2, 2, 2, 2)), IMAGES, SAME),
    "resnet50": (lambda: nets.ResNet(nets.Bottleneck, (3, 4, 6, 3)), IMAGES, SAME),
    "bert_base": (
        nets.Bert, {name: torch.ones(1, 16, dtype=torch.int64) for name in TOKENS},
        {**dict.fromkeys(TOKENS, SEQUENCE), "last_hidden_state": SEQUENCE, "pooler_output": BATCH},
    ),
    "speech": (
        nets.Speech, {"input": torch.zeros(1, 1, 161, 100)},
        {"input": {0: "batch", 3: "time"}, "output": {0: "batch", 1: "steps"}},
    ),
    "lstm": (nets.Lstm, {"input": torch.zeros(1, 20, 100)}, {"input": {0: "batch", 1: "seq"}, "output": BATCH}),
    "cifar_cnn": (nets.CifarCnn, {"input": torch.zeros(1, 3, 32, 32)}, SAME),
    "mlp": (nets.Mlp, {"input": torch.zeros(1, 784)}, SAME),
}  # fmt: skip


def export(name, path):
    """Batch normalization stays as it is: folding it is the work of what runs the model."""
    make, examples, axes = RECIPES[name]
    torch.manual_seed(1)
    torch.set_num_threads(1)  # sums are taken in the same order everywhere
    net = make().eval()
    torch.onnx.export(
        net, tuple(examples.values()), path, dynamo=False, opset_version=17, input_names=list(examples),
        output_names=[output for output in axes if output not in examples], dynamic_axes=axes,
        training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=True,
    )  # fmt: skip
