"""Checks of a configuration, before torch is imported or any data is read. Every complaint is one sentence.

values: each key is known and has a value of its kind (keys.py, kinds.py). together: the values fit together.
pretraining: so do those of one. effect: no key is set that the others leave without effect. lengths: they fit the
number of images, where that is known by now.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vitexp.config import effect, rules, values
from vitexp.config.plain_errors import explain_value
from vitexp.config.secrets import refuse_secrets
from vitexp.errors import ConfigError


def check(config: DictConfig, *, own_keys: Collection[str] = ()) -> None:
    """Raise ConfigError for the first thing that cannot work, in one sentence.

    own_keys: what stands beside the keys of train.py, and is checked by the command that it belongs to.
    """
    plain = _plain(config)
    refuse_secrets(plain)
    # lazily: a check may rely on those before it
    for complaint in chain(
        values.complaints(plain, own_keys=own_keys),
        rules.complaints(plain),
        rules.pretraining_complaints(plain),
        effect.complaints(plain),
        rules.complaints_of_drawn(plain),
    ):
        raise ConfigError(complaint)


def check_lengths(config: DictConfig, *, train: int, val: int, test: int) -> None:
    """Raise ConfigError where the configuration does not fit these numbers of images. Only a read data set has them."""
    for complaint in rules.length_complaints(_plain(config), train=train, val=val, test=test):
        raise ConfigError(complaint)


def _plain(config: DictConfig) -> Any:
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_value(error)) from error
