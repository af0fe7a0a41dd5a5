"""The yardstick: a DQN whose whole loop is one jitted JAX function.

Ten environments step, their transitions enter the replay buffer, and one update follows; fifty
such iterations make a block between two copies into the target network, and the run is a scan
over blocks. Written for this benchmark.
"""

import time
from argparse import Namespace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from protocol import SCHEDULE, Run, greedy_return, main, versions

NUM_ENVS = SCHEDULE.steps_per_update
OBS, ACTIONS = SCHEDULE.layers[0], SCHEDULE.layers[-1]
ITERATIONS = SCHEDULE.target_period // NUM_ENVS  # in a block
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
    state: Array  # [N, 4]
    age: Array  # env steps of the running episodes [N]
    iteration: Array
    key: Array


def init_params(key: Array) -> Params:
    """Weights and biases U[-1/√in, 1/√in], as torch draws them."""
    params = []
    for fan_in, fan_out in pairwise(SCHEDULE.layers):
        key, weight, bias = random.split(key, 3)
        draw = partial(random.uniform, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)
        params.append((draw(weight, (fan_in, fan_out)), draw(bias, (fan_out,))))
    return params


def q_values(params: Params, obs: Any) -> Any:
    """Q(s, ·): [N, 4] -> [N, 2]."""
    *hidden, (weight, bias) = params
    for w, b in hidden:
        obs = (obs @ w + b).clip(0)
    return obs @ weight + bias


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


def collect(carry: Carry) -> Carry:
    """One ε-greedy step of every environment, into the replay buffer."""
    key, coin, choice, start = random.split(carry.key, 4)
    epsilon = jnp.interp(
        carry.iteration * NUM_ENVS,
        jnp.array([0, SCHEDULE.epsilon_steps]),
        jnp.array([SCHEDULE.epsilon_start, SCHEDULE.epsilon_end]),
    )
    explore = random.uniform(coin, (NUM_ENVS,)) < epsilon
    anything = random.randint(choice, (NUM_ENVS,), 0, ACTIONS)
    action = jnp.where(explore, anything, q_values(carry.params, carry.state).argmax(-1))
    next_obs, terminated = cartpole(carry.state, action)
    discount = SCHEDULE.gamma * (1.0 - terminated)
    new = Transitions(carry.state, action, jnp.ones(NUM_ENVS), discount, next_obs)
    row = carry.iteration * NUM_ENVS % SCHEDULE.capacity
    replay = jax.tree.map(
        lambda old, rows: lax.dynamic_update_slice_in_dim(old, rows, row, 0), carry.replay, new
    )
    age = carry.age + 1
    ended = terminated | (age >= 500)
    fresh = random.uniform(start, carry.state.shape, minval=-0.05, maxval=0.05)
    return carry._replace(
        replay=replay,
        state=jnp.where(ended[:, None], fresh, next_obs),
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
        return ((jnp.where(action == 1, q[:, 1], q[:, 0]) - goal) ** 2).mean()

    grads = jax.grad(loss)(carry.params)
    step = carry.iteration - SCHEDULE.warmup // NUM_ENVS
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, carry.moments[0], grads)
    square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, carry.moments[1], grads)
    rate = SCHEDULE.learning_rate / (1 - 0.9**step)
    scale = 1 / jnp.sqrt(1 - 0.999**step)
    params = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v) * scale + 1e-8), carry.params, mean, square
    )
    return carry._replace(params=params, moments=(mean, square), key=key)


def learn(key: Array, blocks: int) -> Params:
    """The whole run: warm-up, then blocks of collecting and updating."""
    init, start, key = random.split(key, 3)
    params = init_params(init)
    zeros = jax.tree.map(jnp.zeros_like, params)
    replay = Transitions(
        obs=jnp.zeros((SCHEDULE.capacity, OBS)),
        action=jnp.zeros(SCHEDULE.capacity, int),
        reward=jnp.zeros(SCHEDULE.capacity),
        discount=jnp.zeros(SCHEDULE.capacity),
        next_obs=jnp.zeros((SCHEDULE.capacity, OBS)),
    )
    carry = Carry(
        params=params,
        target=params,
        moments=(zeros, zeros),
        replay=replay,
        state=random.uniform(start, (NUM_ENVS, OBS), minval=-0.05, maxval=0.05),
        age=jnp.zeros(NUM_ENVS, int),
        iteration=jnp.array(0),
        key=key,
    )

    def block(carry: Carry, _: None) -> tuple[Carry, None]:
        carry = carry._replace(target=carry.params)
        return lax.fori_loop(0, ITERATIONS, lambda _, c: update(collect(c)), carry), None

    carry = lax.fori_loop(0, SCHEDULE.warmup // NUM_ENVS, lambda _, c: collect(c), carry)
    carry, _ = lax.scan(block, carry, length=blocks)
    return carry.params


def train(args: Namespace) -> Run:
    """Compile, run and evaluate."""
    key = random.key(args.seed)
    blocks = (args.env_steps - SCHEDULE.warmup) // SCHEDULE.target_period
    started = time.perf_counter()
    compiled = jax.jit(partial(learn, blocks=blocks)).lower(key).compile()
    compiled_at = time.perf_counter()
    params = jax.block_until_ready(compiled(key))
    ended = time.perf_counter()
    weights = jax.tree.map(np.asarray, params)
    return Run(
        env_steps=SCHEDULE.warmup + blocks * SCHEDULE.target_period,
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
