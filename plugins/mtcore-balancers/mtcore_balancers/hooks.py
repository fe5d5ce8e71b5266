"""What this plugin provides. Imports nothing heavy: components are named, not imported."""

from mtcore.plugin import BalancerSpec, hookimpl

LOSSES = {
    "Mean": ("mean", "The mean of the weighted losses"),
    "Random": ("random", "Random weights that add up to 1, drawn anew for each update (Lin 2022)"),
    "Uncertainty": ("uncertainty", "Learned variances per task (Kendall 2018)"),
    "ImtlL": ("imtl_l", "Learned scales that bring the losses to one size (Liu 2021)"),
    "Dwa": ("dwa", "Tasks whose loss falls slowly weigh more (Liu 2019)"),
    "Gls": ("gls", "The geometric mean of the losses (Chennupati 2019)"),
    "Stch": ("stch", "A smooth maximum of the losses (Lin 2024)"),
    "Pbi": ("pbi", "Distance along and from the line of equal losses (Zhang 2007)"),
    "Cosmos": ("cosmos", "The mean, and the cosine to equal losses (Ruchte 2021)"),
    "Famo": ("famo", "All losses fall at one rate, without the tasks' gradients (Liu 2023)"),
}
TORCHJD = {
    "GradDrop": ("graddrop", "Each value from gradients of one drawn sign (Chen 2020)"),
}
GRAMIAN = {
    "PcGrad": ("pcgrad", "Each gradient without what opposes another (Yu 2020)"),
    "AlignedMtl": ("aligned_mtl", "Gradients made orthogonal and of one length (Senushkin 2023)"),
    "ImtlG": ("imtl_g", "Equal projections on all gradients (Liu 2021)"),
    "FairGrad": ("fairgrad", "Alpha-fair progress of the tasks (Ban 2024)"),
    "UpGrad": ("upgrad", "Each gradient projected on the cone that harms no task, averaged (Quinton 2024)"),
    "DualProj": ("dualproj", "The mean gradient projected on the cone that harms no task (Lopez-Paz 2017)"),
    "Mgda": ("mgda", "The shortest convex combination of the gradients (Sener 2018)"),
    "CaGrad": ("cagrad", "Near the mean gradient, the best for the worst task (Liu 2021)"),
    "Config": ("config", "Equal angles to all gradients (Liu 2024)"),
    "NashMtl": ("nash_mtl", "Nash bargaining among the tasks (Navon 2022)"),
    "GradVac": ("gradvac", "Cosines between gradients raised to their own mean (Wang 2021)"),
    "CrMogm": ("cr_mogm", "MGDA's weights, smoothed over the updates (Zhou 2022)"),
    "GradNorm": ("gradnorm", "Gradients of one norm, larger for tasks that learn slowly (Chen 2018)"),
    "Pcd": ("pcd", "The first task's gradient, with some progress for all others (priority-constrained descent)"),
}
MEMORY = {
    "Moco": ("moco", "MGDA on tracked gradients (Fernando 2023)"),
    "DbMtl": ("db_mtl", "Smoothed gradients of log losses, all as long as the longest (Lin 2023)"),
    "ExcessMtl": ("excess_mtl", "Tasks far from their best loss weigh more (He 2024)"),
    "Modo": ("modo", "MGDA's weights from two independent batches (Chen 2023)"),
    "SdmGrad": ("sdmgrad", "The same, drawn towards the mean gradient (Xiao 2023)"),
}


@hookimpl
def mtcore_register_balancers():
    for module, found in (("losses", LOSSES), ("adapted", TORCHJD), ("methods", GRAMIAN), ("memory", MEMORY)):
        for target, (name, summary) in found.items():
            yield BalancerSpec(name, f"mtcore_balancers.{module}:{target}", summary)
