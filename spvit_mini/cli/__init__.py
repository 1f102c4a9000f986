"""The command line: `python -m spvit_mini COMMAND`, one module per command."""

COMMANDS = {
    "train": ("spvit_mini.cli.train", "train a model by a recipe"),
    "evaluate": ("spvit_mini.cli.evaluate", "measure the accuracy of a trained model"),
    "predict": ("spvit_mini.cli.predict", "classify images, and show what the model looks at"),
    "label": ("spvit_mini.cli.label", "make token labels with a teacher"),
    "export": ("spvit_mini.cli.export", "write a trained model as ONNX, TorchScript or safetensors"),
    "resize": ("spvit_mini.cli.resize", "write a downsized copy of a dataset"),
    "convert": ("spvit_mini.cli.convert", "convert third-party weights"),
    "summary": ("spvit_mini.cli.summary", "print the page of a run"),
    "curves": ("spvit_mini.cli.curves", "draw the curves of runs side by side"),
}
