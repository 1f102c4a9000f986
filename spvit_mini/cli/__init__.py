"""The command line: `python -m spvit_mini COMMAND`, one module per command. This table needs no torch."""

COMMANDS = {
    "train": ("spvit_mini.cli.train", "train a model by a recipe"),
    "evaluate": ("spvit_mini.cli.evaluate", "measure the accuracy of trained weights"),
    "predict": ("spvit_mini.cli.predict", "classify images; --explain draws what the model attends to"),
    "label": ("spvit_mini.cli.label", "compute token labels with a teacher"),
    "export": ("spvit_mini.cli.export", "write a trained model as ONNX or safetensors"),
    "resize": ("spvit_mini.cli.resize", "write a downsized copy of a dataset"),
    "convert": ("spvit_mini.cli.convert", "convert third-party weights"),
    "summary": ("spvit_mini.cli.summary", "print the page of a run"),
    "curves": ("spvit_mini.cli.curves", "plot the learning curves of runs side by side"),
    "models": ("spvit_mini.cli.models", "list the models"),
    "recipes": ("spvit_mini.cli.recipes", "list the recipes, or describe one"),
}
