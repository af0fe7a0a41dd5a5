"""Checks of what users give: each raises one sentence that names the key, value and remedy."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


class ConfigError(ValueError):
    """A mistake of the user's; the message is one sentence that says how to correct it."""


class RunError(RuntimeError):
    """An error that stopped a running run; the message is one sentence."""


def positive(**numbers: float) -> None:
    """Every number is finite and > 0. A keyword is a setting's key, with ``__`` for each dot.

    >>> positive(data__batch_size=0)
    Traceback (most recent call last):
    lit_crl.core.checks.ConfigError: data.replay.batch_size is 0: give a number above 0
    """
    _check(numbers, lambda number: 0 < number < math.inf, "a number above 0")


def non_negative(**numbers: float) -> None:
    """Every number is finite and ≥ 0."""
    _check(numbers, lambda number: 0 <= number < math.inf, "0 or a number above 0")


def unit_interval(**numbers: float) -> None:
    """Every number lies in [0, 1]."""
    _check(numbers, lambda number: 0 <= number <= 1, "a number from 0 to 1")


def positive_unit_interval(**numbers: float) -> None:
    """Every number lies in (0, 1]."""
    _check(numbers, lambda number: 0 < number <= 1, "a number above 0 and at most 1")


def _check(numbers: Mapping[str, float], holds: Callable[[float], bool], remedy: str) -> None:
    for key, number in numbers.items():
        if not holds(number):
            raise ConfigError(f"{key.replace('__', '.')} is {number}: give {remedy}")


def default_dtype() -> None:
    """New tensors are float32: everything here is computed in float32."""
    if (found := torch.get_default_dtype()) != torch.float32:
        raise ConfigError(
            f"torch's default dtype is {found}, but everything here is computed in torch.float32: "
            "call torch.set_default_dtype(torch.float32) first"
        )


def widths(**layers: Sequence[int]) -> None:
    """Every list names at least one layer, and every layer has a width above 0."""
    for key, sizes in layers.items():
        if not sizes:
            raise ConfigError(f"{key.replace('__', '.')} is empty: give the width of a layer")
        positive(**{f"{key}__{i}": width for i, width in enumerate(sizes)})


def difficulty(wanted: float, n_or_z: object) -> None:
    """A difficulty is a success probability, and goes with a number of levels, not with noise."""
    unit_interval(difficulty=wanted)
    if not isinstance(n_or_z, int):
        raise ConfigError(
            f"difficulty is {wanted}, but the noise z already determines the levels: give the "
            "number of levels instead of z"
        )


def device(key: str, name: str) -> torch.device:
    """The device called ``name``."""
    try:
        return torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"{key} is {name!r}: give auto, cpu or cuda") from error


def writable(path: str | os.PathLike[str]) -> Path:
    """The path of a file whose folder exists."""
    if not Path(path).parent.is_dir():
        raise ConfigError(f"cannot write {path}: make the folder {Path(path).parent} first")
    return Path(path)


def callables(**functions: object) -> None:
    """Every setting can be called, as a class of optimizers can."""
    for key, function in functions.items():
        if not callable(function):
            name = key.replace("__", ".")
            raise ConfigError(
                f"{name} is {function!r}: give a class, for instance torch.optim.Adam"
            )


def model_settings(given: Mapping[str, Any]) -> None:
    """The arguments of ``CreativeLearner`` make sense."""
    positive(**{f"model__{key}": given[key] for key in ("target_period", "max_grad_norm")})
    optimizers = ("q_optimizer", "generator_optimizer", "discriminator_optimizer")
    callables(**{f"model__{key}": given[key] for key in optimizers})
    widths(**{f"model__{key}": given[key] for key in ("hidden", "gan_hidden")})
    rates = ("target_rate", "ema_rate", "final_lr")
    positive_unit_interval(**{f"model__{key}": given[key] for key in rates})
    zero_or_more = ("lambda_gan", "r1", "r2", "noise_dim", "level_noise", "planning_steps")
    non_negative(**{f"model__{key}": given[key] for key in zero_or_more})
    if given["compile"] and given["planning_steps"]:
        raise ConfigError(
            f"model.compile is on, but the sweeps of model.network.planning_steps "
            f"{given['planning_steps']} make a graph that takes many minutes to compile: turn one "
            "of them off"
        )


def data_settings(given: Mapping[str, Any]) -> None:
    """The arguments of ``ReplayDataModule`` make sense, alone and together."""
    at_least_one = (
        "num_envs capacity n_steps frame_stack batch_size updates_per_batch steps_per_batch "
        "gan_batch_size min_outcomes tried visited"
    )
    for stage, limit in (("validation", "limit_val_batches"), ("test", "limit_test_batches")):
        if given[f"{stage}_episodes"] == 0:
            raise ConfigError(
                f"data.{stage}_episodes is 0: give a number above 0, or leave the {stage} out with "
                f"--trainer.{limit} 0"
            )
        positive(**{f"data__{stage}_episodes": given[f"{stage}_episodes"]})
    positive(**{f"data__{key}": given[key] for key in at_least_one.split()})
    positive(data__evaluation_share=given["evaluation_share"])
    zero_or_more = "gan_updates novelty_exponent generated_levels priority_exponent"
    non_negative(**{f"data__{key}": given[key] for key in zero_or_more.split()})
    shares = "gamma hindsight label_epsilon reference_reals importance_exponent"
    unit_interval(**{f"data__{key}": given[key] for key in shares.split()})
    if given["difficulty"] is not None:
        unit_interval(data__difficulty=given["difficulty"])
    if given["batch_size"] > given["capacity"]:
        raise ConfigError(
            f"data.replay.batch_size is {given['batch_size']}, more than data.replay.capacity "
            f"({given['capacity']}): give a smaller batch or a larger buffer"
        )
    envs, steps = given["num_envs"], given["steps_per_batch"]
    if given["warmup"] + envs * steps < (given["n_steps"] + 1) * envs:
        raise ConfigError(
            f"data.collect.warmup is {given['warmup']}, too little for {given['n_steps']}-step "
            f"transitions: give at least {(given['n_steps'] + 1 - steps) * envs}"
        )
