"""How well a detector finds defects: metrics, evaluation on a test set, evaluation on synthetic defects."""
