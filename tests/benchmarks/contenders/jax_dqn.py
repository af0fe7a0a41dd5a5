"""The yardstick: a DQN whose whole loop is one jitted JAX function.

All environments step, their transitions enter the replay buffer, and one update follows; many
such iterations make a block, and the run is a scan over blocks. Between two blocks the target
network becomes a copy, unless it follows after each update. Written for this benchmark.
"""

import math
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from protocol import SCHEDULE, Run, greedy_return, main, versions
from tasks import TASK

from contenders import pictures

NUM_ENVS = SCHEDULE.steps_per_update
ACTIONS = SCHEDULE.layers[-1]
FOLLOWS = SCHEDULE.target_rate < 1  # after each update
ITERATIONS = 50 if FOLLOWS else SCHEDULE.target_period // NUM_ENVS  # in a block
Params = list[tuple[Array, Array]]


class Transitions(NamedTuple):
    """Experience; ``discount`` is 0 where the episode terminated."""

    obs: Array
    action: Array
    reward: Array
    discount: Array
    next_obs: Array


class Carry(NamedTuple):
    """All that changes from iteration to iteration."""

    params: Params
    target: Params
    moments: tuple[Params, Params]
    replay: Transitions
    state: Array  # [N, ...]
    age: Array  # env steps of the running episodes [N]
    iteration: Array
    key: Array


def init_params(key: Array) -> Params:
    """Weights and biases U[-1/√in, 1/√in], as torch draws them."""
    shapes: list[tuple[int, ...]] = []
    channels = pictures.CHANNELS
    for filters, side, _ in SCHEDULE.convolutions:
        shapes.append((filters, channels, side, side))
        channels = filters
    params = []
    for shape in [*shapes, *pairwise(SCHEDULE.layers)]:
        fan_out = shape[1] if len(shape) == 2 else shape[0]
        fan_in = math.prod(shape) // fan_out
        key, weight, bias = random.split(key, 3)
        draw = partial(random.uniform, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)
        params.append((draw(weight, shape), draw(bias, (fan_out,))))
    return params


def features(params: Params, obs: Any) -> Any:
    """What the dense part gets: pictures [N, C, H, W] through the convolutions, [N, features]."""
    if not SCHEDULE.convolutions:
        return obs
    obs = jnp.asarray(obs, jnp.float32) / 255
    for (w, b), (_, _, stride) in zip(params, SCHEDULE.convolutions, strict=False):
        found = lax.conv_general_dilated(obs, jnp.asarray(w), (stride, stride), "VALID")
        obs = (found + b[:, None, None]).clip(0)
    return obs.reshape(len(obs), -1)


def q_values(params: Params, obs: Any) -> Any:
    """Q(s, ·): [N, ...] -> [N, A]."""
    obs = features(params, obs)
    *hidden, (weight, bias) = params[len(SCHEDULE.convolutions) :]
    for w, b in hidden:
        obs = (obs @ w + b).clip(0)
    return obs @ weight + bias


class Game(NamedTuple):
    """A task of many environments, as functions of arrays."""

    #: States of so many new episodes, ``[n, ...]``, from a key.
    start: Callable[[Array, int], Array]
    #: From a key, states and actions: the next states, rewards, and which tasks have ended.
    step: Callable[[Array, Array, Array], tuple[Array, Array, Array]]
    #: Observations of states.
    observe: Callable[[Array], Array]
    #: Steps after which an episode is cut.
    limit: int


def cartpole(state: Array, action: Array) -> tuple[Array, Array]:
    """One Euler step of Gymnasium's CartPole-v1: next states [N, 4], terminated [N]."""
    _, velocity, angle, spin = state.T
    force = 20.0 * action - 10.0
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    push = (force + 0.05 * spin**2 * sin) / 1.1
    spin_change = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    acceleration = push - 0.05 * spin_change * cos / 1.1
    state = state + 0.02 * jnp.stack((velocity, acceleration, spin, spin_change), -1)
    return state, (abs(state[:, 0]) > 2.4) | (abs(state[:, 2]) > 12 * np.pi / 180)


def pole() -> Game:
    """Gymnasium's CartPole-v1."""

    def start(key: Array, n: int) -> Array:
        return random.uniform(key, (n, 4), minval=-0.05, maxval=0.05)

    def step(key: Array, state: Array, action: Array) -> tuple[Array, Array, Array]:
        found, terminated = cartpole(state, action)
        return found, jnp.ones(len(state)), terminated

    return Game(start, step, lambda state: state, 500)


def eyes(side: int) -> Game:
    """``pictures.Pictures``; a state is the number of a picture."""
    pool = jnp.asarray(pictures.pool(side))

    def start(key: Array, n: int) -> Array:
        return random.randint(key, (n,), 0, pictures.POOL)

    def step(key: Array, state: Array, action: Array) -> tuple[Array, Array, Array]:
        reward = (action == state % pictures.QUARTERS).astype(jnp.float32)
        return start(key, len(state)), reward, jnp.zeros(len(state), bool)

    return Game(start, step, lambda state: pool[state], pictures.STEPS)


def game() -> Game:
    """That of the task."""
    if not SCHEDULE.convolutions:
        return pole()
    return eyes(10 if TASK.env_id.endswith("10-v0") else 84)


GAME = game()


def collect(carry: Carry) -> Carry:
    """One ε-greedy step of every environment, into the replay buffer."""
    key, coin, choice, start, chance = random.split(carry.key, 5)
    epsilon = jnp.interp(
        carry.iteration * NUM_ENVS,
        jnp.array([0, SCHEDULE.epsilon_steps]),
        jnp.array([SCHEDULE.epsilon_start, SCHEDULE.epsilon_end]),
    )
    explore = random.uniform(coin, (NUM_ENVS,)) < epsilon
    anything = random.randint(choice, (NUM_ENVS,), 0, ACTIONS)
    obs = GAME.observe(carry.state)
    action = jnp.where(explore, anything, q_values(carry.params, obs).argmax(-1))
    state, reward, terminated = GAME.step(chance, carry.state, action)
    discount = SCHEDULE.gamma * (1.0 - terminated)
    new = Transitions(obs, action, reward, discount, GAME.observe(state))
    row = carry.iteration * NUM_ENVS % SCHEDULE.capacity
    replay = jax.tree.map(
        lambda old, rows: lax.dynamic_update_slice_in_dim(old, rows, row, 0), carry.replay, new
    )
    age = carry.age + 1
    ended = terminated | (age >= GAME.limit)
    fresh = GAME.start(start, NUM_ENVS)
    return carry._replace(
        replay=replay,
        state=jnp.where(ended.reshape(-1, *[1] * (state.ndim - 1)), fresh, state),
        age=jnp.where(ended, 0, age),
        iteration=carry.iteration + 1,
        key=key,
    )


def update(carry: Carry) -> Carry:
    """One step of Adam on the mean squared TD error of a minibatch."""
    key, draw = random.split(carry.key)
    rows = random.randint(draw, (SCHEDULE.batch,), 0, SCHEDULE.capacity)
    obs, action, reward, discount, next_obs = jax.tree.map(lambda x: x[rows], carry.replay)
    goal = reward + discount * q_values(carry.target, next_obs).max(-1)

    def loss(params: Params) -> Array:
        q = q_values(params, obs)
        taken = sum(jnp.where(action == a, q[:, a], 0.0) for a in range(ACTIONS))
        return ((taken - goal) ** 2).mean()

    grads = jax.grad(loss)(carry.params)
    step = carry.iteration - SCHEDULE.warmup // NUM_ENVS
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, carry.moments[0], grads)
    square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, carry.moments[1], grads)
    rate = SCHEDULE.learning_rate / (1 - 0.9**step)
    scale = 1 / jnp.sqrt(1 - 0.999**step)
    params = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v) * scale + 1e-8), carry.params, mean, square
    )
    target, rate = carry.target, SCHEDULE.target_rate
    if FOLLOWS:
        target = jax.tree.map(lambda slow, fast: slow + rate * (fast - slow), target, params)
    return carry._replace(params=params, target=target, moments=(mean, square), key=key)


def learn(key: Array, blocks: int) -> Params:
    """The whole run: warm-up, then blocks of collecting and updating."""
    init, start, key = random.split(key, 3)
    params = init_params(init)
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = GAME.start(start, NUM_ENVS)
    obs = GAME.observe(state)
    rows = (SCHEDULE.capacity, *obs.shape[1:])
    replay = Transitions(
        obs=jnp.zeros(rows, obs.dtype),
        action=jnp.zeros(SCHEDULE.capacity, int),
        reward=jnp.zeros(SCHEDULE.capacity),
        discount=jnp.zeros(SCHEDULE.capacity),
        next_obs=jnp.zeros(rows, obs.dtype),
    )
    carry = Carry(
        params=params,
        target=params,
        moments=(zeros, zeros),
        replay=replay,
        state=state,
        age=jnp.zeros(NUM_ENVS, int),
        iteration=jnp.array(0),
        key=key,
    )

    def block(carry: Carry, _: None) -> tuple[Carry, None]:
        if not FOLLOWS:
            carry = carry._replace(target=carry.params)
        return lax.fori_loop(0, ITERATIONS, lambda _, c: update(collect(c)), carry), None

    carry = lax.fori_loop(0, SCHEDULE.warmup // NUM_ENVS, lambda _, c: collect(c), carry)
    carry, _ = lax.scan(block, carry, length=blocks)
    return carry.params


def train(args: Namespace) -> Run:
    """Compile, run and evaluate."""
    key = random.key(args.seed)
    blocks = (args.env_steps - SCHEDULE.warmup) // (ITERATIONS * NUM_ENVS)
    started = time.perf_counter()
    compiled = jax.jit(partial(learn, blocks=blocks)).lower(key).compile()
    compiled_at = time.perf_counter()
    params = jax.block_until_ready(compiled(key))
    ended = time.perf_counter()
    weights = jax.tree.map(np.asarray, params)
    return Run(
        env_steps=SCHEDULE.warmup + blocks * ITERATIONS * NUM_ENVS,
        updates=blocks * ITERATIONS,
        seconds=ended - compiled_at,
        compile_seconds=compiled_at - started,
        greedy_return=greedy_return(
            lambda obs: q_values(weights, obs).argmax(-1), args.env_steps, args.seed
        ),
        versions=versions("jax", "jaxlib"),
    )


if __name__ == "__main__":
    main(train)
