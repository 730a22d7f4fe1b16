"""What runs a model's weights: one module an engine, behind the few calls that tasks make.

An engine stands where a task's `answer` and `measure` take a model.  It has `config` and `device`; called with tensors
it gives logits, or it has `generate`, as models of `transformers` do.  It does not know what the numbers mean: tokens,
spans and texts are the task's, so what was measured with one engine is served with it.
"""
