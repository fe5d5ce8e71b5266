"""What this plugin provides. Imports nothing heavy: components are named, not imported."""

from mtcore.plugin import TrainerSpec, hookimpl


@hookimpl
def mtcore_register_trainers():
    yield TrainerSpec("alternate", "mtcore_trainers.alternate:Alternate", "Each update learns one task")
    yield TrainerSpec("pretrain_finetune", "mtcore_trainers.stages:PretrainFinetune", "Tasks and frozen layers in stages")
    yield TrainerSpec("adversarial", "mtcore_trainers.adversarial:Adversarial", "Nuisance tasks are unlearned")
    yield TrainerSpec("sklearn", "mtcore_trainers.estimators:Sklearn", "An estimator of scikit-learn per task")
