"""Logs as files: what is read is what was written, and what is wrong is said in a sentence."""

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from logged_steps import EPISODES, Arrays, counter, replay_from, saved

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.logs import npz
from lit_crl.dqn.logs.filled import first_observations
from lit_crl.dqn.logs.log import counts, notices
from lit_crl.dqn.logs.npz import ARRAYS, NpzLog
from lit_crl.dqn.logs.task import LoggedTask
from lit_crl.world.real_steps import split, steps_at


def test_every_step_is_one_of_the_log_and_never_crosses_an_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = counter()
    for part in (1, 3 * 2 * 4, npz.PART):  # bytes: parts of one row, of three, and the whole
        monkeypatch.setattr(npz, "PART", part)
        replay = replay_from(NpzLog(saved(given, tmp_path)))
        rows = replay.startable.nonzero().squeeze(1)
        steps = steps_at(replay, rows)
        for name in ("obs", "action", "reward", "terminated", "next_obs"):
            expected = torch.from_numpy(given[name])
            assert torch.equal(getattr(steps, name), expected), name
        # What follows, by the counter itself: the same episode, one step later.
        assert torch.equal(steps.next_obs, steps.obs + torch.tensor([0.0, 1.0]))
        first = first_observations(replay, NpzLog(tmp_path / "log.npz").columns.ended)
        assert first.tolist() == [[e, 0] for e in range(len(EPISODES))]


@pytest.mark.parametrize("n", [2, 3, 7])
def test_windows_of_n_steps_end_with_their_episodes(tmp_path: Path, n: int) -> None:
    given = counter()
    replay = replay_from(NpzLog(saved(given, tmp_path)), n_steps=n)
    found = replay.gather(replay.startable.nonzero().squeeze(1))
    ended = given["terminated"] | given["truncated"]
    for row in range(len(ended)):
        reward, discount, at = 0.0, 1.0, row
        for k in range(n):
            at = row + k
            reward += discount * float(given["reward"][at])
            discount *= 0.0 if given["terminated"][at] else 0.5
            if ended[at]:
                break
        assert found.reward[row].item() == pytest.approx(reward)
        assert found.discount[row].item() == pytest.approx(discount)
        assert torch.equal(found.next_obs[row], torch.from_numpy(given["next_obs"][at]))


def test_a_log_may_stop_within_an_episode_and_both_flags_are_an_end(tmp_path: Path) -> None:
    given = counter(((3, True), (2, False)))
    given["truncated"][:] = [False, False, True, False, False]  # both, and none at the last row
    log = NpzLog(saved(given, tmp_path))
    assert counts(log.columns) == (5, 2, 1, 1, 3)
    replay = replay_from(log)
    steps = steps_at(replay, replay.startable.nonzero().squeeze(1))
    assert steps.terminated.tolist() == [False, False, True, False, False]
    assert steps.next_obs[-1].tolist() == [1.0, 2.0] and replay.discount[5] == 0.5


def test_rows_without_episodes_are_held_back_one_by_one(tmp_path: Path) -> None:
    given = counter(tuple((1, False) for _ in range(400)))
    given["obs_high"][:] = 400
    replay = replay_from(NpzLog(saved(given, tmp_path)))
    held = split(replay, 2, 0.8, 0.25).held_back
    assert 70 <= int(held.sum()) <= 130  # 100 ± 3.4 σ


def test_types_are_kept(tmp_path: Path) -> None:
    given = counter()
    for name in ("obs", "next_obs", "obs_low", "obs_high"):
        given[name] = given[name].astype(np.uint8)
    replay = replay_from(NpzLog(saved(given, tmp_path)))
    assert replay.obs.dtype == torch.uint8 and replay.action.dtype == torch.uint8
    assert len(replay.obs) == len(given["obs"]) + len(EPISODES)  # each observation once


def test_a_large_log_is_never_held_twice(tmp_path: Path) -> None:
    rows = 50_000
    obs = np.random.default_rng(0).random((rows + 1, 50), np.float32)
    flags = np.zeros(rows, bool)
    path = tmp_path / "large.npz"
    np.savez(path, obs=obs[:-1], next_obs=obs[1:], action=flags.astype(np.uint8),
             reward=flags.astype(np.float32), terminated=flags, truncated=flags, num_actions=2,
             obs_low=np.zeros(50, np.float32), obs_high=np.ones(50, np.float32))  # fmt: skip
    old, npz.PART = npz.PART, 2**18
    tracemalloc.start()  # sees NumPy's memory; torch's is that of the replay, 10 MB
    try:
        replay = replay_from(NpzLog(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        npz.PART = old
    kept = replay.obs.nbytes
    assert kept + peak < 1.3 * path.stat().st_size * 0.6  # the file has observations twice


def change(name: str, row: int | None, value: Any) -> Callable[[Arrays], Arrays]:
    def changed(arrays: Arrays) -> Arrays:
        arrays = dict(arrays)
        array = arrays[name].copy()
        array[row if row is not None else slice(None)] = value
        return arrays | {name: array}

    return changed


def put(**given: Any) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | given


def without(*names: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {name: array for name, array in arrays.items() if name not in names}


def as_type(name: str, dtype: Any) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: arrays[name].astype(dtype)}


def shifted(*names: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: np.roll(arrays[name], 1, 0) for name in names}


def done_alone(arrays: Arrays) -> Arrays:
    rest = without("terminated", "truncated")(arrays)
    return rest | {"done": arrays["terminated"] | arrays["truncated"]}


def renamed(arrays: Arrays) -> Arrays:
    names = {"obs": "observations", "next_obs": "next_observations", "terminated": "terminals"}
    return {names.get(name, name): array for name, array in arrays.items()}


def glued(arrays: Arrays) -> Arrays:
    """The flags of the third episode's end are lost."""
    return change("truncated", 7, False)(arrays)


BROKEN: list[tuple[str, Callable[[Arrays], Arrays], str]] = [
    *((f"no {name}", without(name), f"lacks {name}, and has .*: give all six") for name in ARRAYS),
    ("done alone", done_alone, "has done in the place of terminated and truncated: say which"),
    ("done for truncated", lambda a: done_alone(a) | {"terminated": a["terminated"]},
     "has done in the place"),
    ("other names", renamed, "lacks obs, terminated, next_obs, and has .*observations"),
    ("unequal", lambda a: a | {"reward": a["reward"][:-1]}, r"different lengths \(.*reward 10,"),
    ("T + 1", lambda a: a | {"obs": np.append(a["obs"], a["obs"][-1:], 0)}, "obs has no row for"),
    ("empty", lambda a: a | {name: a[name][:0] for name in ARRAYS}, "has no rows"),
    ("objects", lambda a: a | {"obs": np.array([[1], [1, 2]], object)}, "obs holds Python objects"),
    ("object infos", put(infos=np.array([{}], object)), "infos holds Python objects"),
    ("NaN in obs", change("obs", 2, np.nan), "obs has NaN .* in row 2: leave that episode out"),
    ("inf in next_obs", change("next_obs", 10, np.inf), "next_obs has NaN .* in row 10"),
    ("NaN reward", change("reward", 4, np.nan), "reward is nan in row 4: leave"),
    ("beyond float32", lambda a: a | {"reward": a["reward"] + 1e300 * (a["action"] == 2)},
     r"reward is 1e\+300 in row 2"),
    ("text", as_type("obs", "U8"), "obs has type <U8: give real numbers"),
    ("complex", as_type("reward", complex), "reward has type complex128: give real numbers"),
    ("float actions", as_type("action", np.float32), "action has type float32: give whole numbers"),
    ("bool actions", as_type("action", bool), "action has type bool: give whole numbers"),
    ("number flags", as_type("terminated", np.uint8), r"terminated has type uint8.*astype\(bool\)"),
    ("types differ", as_type("next_obs", np.float64), "obs is float32 .* next_obs is float64"),
    ("action too large", change("action", 5, 3), "action is 3 in row 5: there are 3 actions"),
    ("action negative", change("action", 6, -1), "action is -1 in row 6: .*give 0 to 2"),
    ("gap in actions", put(num_actions=np.array(2)), "action is 2 in row 2: there are 2 actions"),
    ("obs too large", change("obs", 4, [2, 9.5]), "obs lies outside obs_low and obs_high in row 4"),
    ("next too small", change("next_obs", 3, -1), "next_obs lies outside .* in row 3: correct"),
    ("obs moved", shifted("obs"), "% of the rows within episodes .* is not the obs of the next"),
    ("next_obs moved", shifted("next_obs"), "% of the rows within episodes"),
    ("flags moved", shifted("terminated", "truncated"), r"within episodes \(first in row 2\)"),
    ("terminated moved", shifted("terminated"), "within episodes"),
    ("truncated moved", shifted("truncated"), "within episodes"),
    ("glued episodes", glued, r"in 14\.3% of the rows within episodes \(first in row 7\)"),
    ("flat obs", lambda a: a | {n: a[n][:, 0] for n in ("obs", "next_obs")}, "reshape.-1, 1"),
    ("column of rewards", lambda a: a | {"reward": a["reward"][:, None]}, r"reward has shape \(11"),
    ("no actions", put(num_actions=np.array(0)), "num_actions is 0: give how many"),
    ("number as text", put(num_actions=np.array("3")), "num_actions is 3: give one whole number"),
    ("no number", without("num_actions"), "does not say num_actions, and values do not tell"),
    ("no bounds", without("obs_low", "obs_high"), "does not say obs_low and obs_high, and"),
    ("one bound", without("obs_low"), "has one of obs_low and obs_high: give both"),
    ("bounds' shape", put(obs_low=np.zeros(3)), r"a bound of observations is float64 of shape"),
    ("bounds crossed", put(obs_low=np.full(2, 10)), "obs_low is above obs_high, or NaN"),
    ("layout", put(image_layout=np.array("WH")), "image_layout is 'WH': give HW"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "says"), [row[1:] for row in BROKEN], ids=[r[0] for r in BROKEN]
)
def test_what_is_wrong_is_said_in_one_sentence(
    broken: Callable[[Arrays], Arrays], says: str, tmp_path: Path
) -> None:
    path = saved(broken(counter()), tmp_path)
    with pytest.raises(ConfigError, match=says) as caught:
        log = NpzLog(path)
        LoggedTask(log)
        replay_from(log)
    said = str(caught.value)
    assert said.startswith(f"data.transitions {path}: ") and "\n" not in said
    assert re.search(r": \w[^:]+$", said)  # the remedy comes last


def test_what_is_no_file_of_arrays_is_said_too(tmp_path: Path) -> None:
    path = tmp_path / "log.npz"
    with pytest.raises(ConfigError, match="there is no such file"):
        NpzLog(path)
    path.write_bytes(b"no zip")
    with pytest.raises(ConfigError, match=r"cannot be read .*: give a whole file"):
        NpzLog(path)
    whole = saved(counter(), tmp_path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="cannot be read"):
        NpzLog(path)


def test_all_ends_at_one_step_look_like_a_time_limit(tmp_path: Path) -> None:
    limited = counter(((4, True), (4, True), (4, True)))
    (said,) = notices(NpzLog(saved(limited, tmp_path)).columns)
    assert said.startswith("All 3 ends are at step 4 of their episodes: this looks like")
    limited["truncated"], limited["terminated"] = limited["terminated"], limited["truncated"]
    (said,) = notices(NpzLog(saved(limited, tmp_path)).columns)
    assert said.startswith("No step ends the task")
    assert notices(NpzLog(saved(counter(), tmp_path)).columns) == []
    limited["reward"][:] = -1
    (said,) = notices(NpzLog(saved(limited, tmp_path)).columns)
    assert "can teach nothing" in said


def test_a_compressed_and_a_column_ordered_file_are_read_alike(tmp_path: Path) -> None:
    given = counter()
    plain = replay_from(NpzLog(saved(given, tmp_path)))
    path = tmp_path / "other.npz"
    np.savez_compressed(path, **given | {"obs": np.asfortranarray(given["obs"])})
    assert torch.equal(replay_from(NpzLog(path)).obs, plain.obs)
