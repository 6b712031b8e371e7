"""Benchmarks of lm-evaluation-harness for a model with whatever operations it has: `evaluate`, and `lm_eval`'s model.

`python -m dlens.evaluation` is lm-eval's command line with the model `dlens`. All but the likelihoods needs the extra
`eval`.
"""
