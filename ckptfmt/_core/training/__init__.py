"""Framework-independent parts of a training run: save schedule, background saves, signals, reports."""
