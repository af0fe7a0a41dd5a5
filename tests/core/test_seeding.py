"""Random streams are independent of each other, and continue where they were saved."""

import torch

from lit_crl.core.seeding import RandomStreams, random_stream, stream_seed

CPU = torch.device("cpu")


def test_every_seed_purpose_and_rank_has_a_stream_of_its_own() -> None:
    keys = [(s, p, r) for s in (0, 1) for p in ("z", "replay", "zz") for r in (0, 1)]
    draws = {tuple(torch.rand(3, generator=random_stream(*key)).tolist()) for key in keys}
    assert len(draws) == len(keys)
    assert min(stream_seed(*key) for key in keys) >= 0


def test_drawing_from_one_stream_never_shifts_another() -> None:
    streams = RandomStreams(3)
    torch.rand(100, generator=streams("z", CPU))
    alone = torch.rand(5, generator=random_stream(3, "exploration"))
    assert torch.equal(torch.rand(5, generator=streams("exploration", CPU)), alone)


def test_saved_streams_go_on_where_they_were() -> None:
    streams = RandomStreams(3)
    torch.rand(7, generator=streams("z", CPU))
    torch.rand(2, generator=streams("exploration", CPU))
    state = streams.state_dict()
    following = {name: torch.rand(4, generator=streams(name, CPU)) for name in state}

    restored = RandomStreams(99)
    torch.rand(1, generator=restored("z", CPU))
    restored.load_state_dict(state)
    # If they are saved again before a draw, they are still the same.
    again = RandomStreams(99)
    again.load_state_dict(restored.state_dict())
    for stream in (restored, again):
        for name, expected in following.items():
            assert torch.equal(torch.rand(4, generator=stream(name, CPU)), expected)
