"""lm-eval's command line, with the model `dlens`."""

from dlens.evaluation.evaluate import require_lm_eval

if __name__ == "__main__":
    require_lm_eval()
    from lm_eval.__main__ import cli_evaluate

    import dlens.evaluation.lm  # noqa: F401

    cli_evaluate()
