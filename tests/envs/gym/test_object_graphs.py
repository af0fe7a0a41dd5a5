"""Objects as plain data against copies by ``copy.deepcopy``, and data that nobody should trust."""

import copy
import io
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch

from lit_crl.envs.gym.object_graphs import Decoder, Encoder, UnknownState


class Thing:
    """Has attributes of all kinds."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


PACKAGES = (Thing.__module__,)


def through_a_file(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(Encoder(PACKAGES, []).encode(value, "thing"), file)
    file.seek(0)
    return Decoder(PACKAGES, []).decode(torch.load(file, weights_only=True))


def test_every_kind_of_value_comes_back() -> None:
    thing = Thing(
        numbers=[1, 2.5, True, None, "text"],
        pair=(np.float32(0.5), np.arange(6).reshape(2, 3)),
        table={(1, "a"): [2], "b": {3}},
        queue=deque([np.zeros(2), np.ones(2)], maxlen=2),
    )
    found = through_a_file(thing)
    assert found.numbers == thing.numbers and type(found.numbers[2]) is bool
    assert found.pair[0] == thing.pair[0] and type(found.pair[0]) is np.float32
    np.testing.assert_array_equal(found.pair[1], thing.pair[1])
    assert found.table == thing.table and found.queue.maxlen == 2
    np.testing.assert_array_equal(np.stack(found.queue), np.stack(thing.queue))


def test_shared_and_circular_objects_stay_shared() -> None:
    shared, stream = Thing(name="one"), np.random.RandomState(3)
    thing = Thing(first=shared, second=shared, rng=stream, inner=Thing(rng=stream), rows=[[]] * 2)
    thing.me = thing
    for found in (through_a_file(thing), copy.deepcopy(thing)):
        assert found.first is found.second and found.me is found and found.first is not shared
        assert found.rng is found.inner.rng and found.rows[0] is found.rows[1]
        first = found.rng.rand()
        assert first != found.inner.rng.rand()


def test_random_generators_go_on() -> None:
    for rng in (np.random.default_rng(1), np.random.Generator(np.random.MT19937(1))):
        rng.random(7)
        found = through_a_file(rng)
        assert found.random(5).tolist() == rng.random(5).tolist()
    old = np.random.RandomState(1)
    old.rand(7)
    assert through_a_file(old).rand(5).tolist() == old.rand(5).tolist()


def test_known_objects_are_referred_to() -> None:
    env = Thing(steps=3)
    saved = Encoder(PACKAGES, [env]).encode(Thing(env=env), "thing")
    assert Decoder(PACKAGES, [env]).decode(saved).env is env


@pytest.mark.parametrize(
    "value", [io.BytesIO(), torch.zeros(2), np.array(["text"]), lambda: None, int]
)
def test_what_is_not_known_is_refused(value: Any) -> None:
    with pytest.raises(UnknownState, match=r"thing\.part (is a|holds an array)"):
        Encoder(PACKAGES, []).encode(Thing(part=value), "thing")


@pytest.mark.parametrize(
    ("saved", "sentence"),
    [
        ({"__kind__": "object", "module": "subprocess", "name": "Popen"}, "is not allowed"),
        ({"__kind__": "object", "module": "os", "name": "system"}, "is not allowed"),
        ({"__kind__": "object", "module": Thing.__module__, "name": "io"}, "no class of its"),
        ({"__kind__": "object", "module": Thing.__module__, "name": "np.ndarray"}, "no class|vars"),
        ({"__kind__": "exec", "source": "1"}, "the kind 'exec', which there is not"),
        ({"__kind__": "Generator", "state": {"bit_generator": "sys"}}, "'sys', which there is not"),
    ],
)
def test_data_of_strangers_make_nothing_else(saved: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Decoder(PACKAGES, []).decode({**saved, "number": 1, "attributes": {}})
