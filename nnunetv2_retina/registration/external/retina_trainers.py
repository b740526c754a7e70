"""Read by nnU-Net's search for trainers (see ``nnunetv2_retina.registration``). Holds nothing of its own."""

try:
    from nnunetv2_retina.console import end_nnunet_in_one_line
    from nnunetv2_retina.trainers import *  # noqa: F403
except ModuleNotFoundError as error:
    # $nnUNet_extTrainer is inherited by child processes, also by those of an environment without this package.
    if error.name is None or error.name.split(".")[0] != "nnunetv2_retina":
        raise
else:
    end_nnunet_in_one_line()
