"""What this plugin provides."""

from mtcore.plugin import TrainerSpec, hookimpl


@hookimpl
def mtcore_register_trainers():
    yield TrainerSpec("lookahead", "mtcore_lookahead.trainer:Lookahead", "Slow weights that follow the optimizer's from afar")
