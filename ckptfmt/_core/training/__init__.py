"""What a training run needs of any framework: when to save, saving in the background, signals, reports."""
