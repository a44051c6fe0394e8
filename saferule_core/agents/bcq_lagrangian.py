"""BCQ-Lagrangian, the agent of the Safe-RULE paper: choose among what a model of the logged behaviour proposes.

    agent = train("bcq_lagrangian", data, cost_limit=10.0, seed=0)

    behaviour model   variational auto-encoder:  min  E_D*[ |D(s, z) - a|^2 + beta KL(q(z | s, a) || N(0, 1)) ],  z ~ q
    policy            pi(s) = D(s, z*) + Phi,   z* = reach tanh(.),   |Phi| <= 2 phi
                      max  E_D[ (Q_r - lambda Q_c)(s, pi(s)) / std ]   over z* and Phi; D stays what behaviour made it
    critics           as in `actor_critic.py`, ensembles in one batched product each
    multiplier        bounded dual ascent, see `actor_critic.py`

Source: arXiv 2606.09559; its reference takes `BCQL` of OSRL (arXiv 2306.09303), which is BCQ (Fujimoto et al., arXiv
1812.02900) with a cost critic. Four differences:
- The behaviour that is modelled is that of D*, the episodes labelled safe: what the policy chooses from is then
  harmless, as far as labels can be trusted.
- The deployed policy is deterministic and differentiable: a latent that a network chooses (as in arXiv 2011.07213)
  stands where BCQ takes the best of some random ones, and OSRL drives with a random one. Its reach is OSRL's.
- It is small, 128 units a layer and two members an ensemble, so that it trains on one CPU thread in a minute or so;
  OSRL's takes a fifth of a second per step there.
- The multiplier is moved by bounded dual ascent instead of a PID controller.

Everything that drives lies in the module "actor". Steps that raise the policy's value, the agent's own as those of
`paper` and `trajdeleter`, move z* and Phi alone. Those that imitate, or undo imitation, as `safe_rule` and
`gradient_ascent`, move the decoder too: poison that is labelled safe is part of the behaviour that it models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from saferule_core.agents.actor_critic import ActorCriticAgent, ActorCriticLearner, Batch
from saferule_core.agents.base import Agent, register
from saferule_core.agents.networks import HIDDEN, Normaliser, perceptron
from saferule_core.agents.single_row import Row, normaliser_row, perceptron_row
from saferule_core.data.transitions import Transitions


@dataclass(frozen=True)
class BcqLagrangianConfig:
    """Hyperparameters. `horizon` [steps] turns the episode's cost limit into a discounted one.

    latent_reach: how far z* may go from 0, in standard deviations of the prior. perturbation: phi.
    """

    cost_limit: float = 10.0
    steps: int = 6000
    batch_size: int = 128
    learning_rate: float = 1e-3
    discount: float = 0.97
    target_rate: float = 0.01
    policy_rate: float = 0.01
    policy_every: int = 2
    latent_reach: float = 0.5
    perturbation: float = 0.05
    divergence_weight: float = 0.1
    multiplier_floor: float = 2.0
    multiplier_bound: float = 3.0
    multiplier_rate: float = 0.01
    horizon: int = 200
    hidden: tuple[int, ...] = HIDDEN


class BehaviourActor(nn.Module):
    """The decoder D and the network that chooses z* and Phi: observation (N, obs_dim) -> action in [-1, 1].

    D = tanh(u), and the action is (1 - phi) tanh(u) + phi tanh(u + v), so that v = 0 leaves D alone and no bound ever
    stops a gradient.
    """

    def __init__(self, obs_dim: int, action_dim: int, config: BcqLagrangianConfig) -> None:
        super().__init__()
        self.latent_dim, self.reach, self.perturbation = 2 * action_dim, config.latent_reach, config.perturbation
        self.normaliser = Normaliser(obs_dim)
        self.decoder = perceptron(obs_dim + self.latent_dim, action_dim, config.hidden)
        self.choice = perceptron(obs_dim, self.latent_dim + action_dim, config.hidden)

    def decode(self, observations: Tensor, latent: Tensor) -> Tensor:
        """Return u, the action before tanh."""
        return self.decoder(torch.cat([self.normaliser(observations), latent], dim=1))

    def forward(self, observations: Tensor) -> Tensor:
        latent, shift = self.choice(self.normaliser(observations)).tensor_split([self.latent_dim], dim=1)
        proposed = self.decode(observations, self.reach * torch.tanh(latent))
        return (1.0 - self.perturbation) * torch.tanh(proposed) + self.perturbation * torch.tanh(proposed + shift)

    def single_row(self) -> Row:
        """Return the present policy as a function of one observation; see `single_row`."""
        normalise, choice, decoder = (
            normaliser_row(self.normaliser), perceptron_row(self.choice), perceptron_row(self.decoder)
        )  # fmt: skip
        reach, latent_dim = np.float32(self.reach), self.latent_dim
        kept, moved = np.float32(1.0 - self.perturbation), np.float32(self.perturbation)

        def act(observation: np.ndarray) -> np.ndarray:
            state = normalise(observation)
            chosen = choice(state)
            proposed = decoder(np.concatenate((state, reach * np.tanh(chosen[:latent_dim]))))
            return kept * np.tanh(proposed) + moved * np.tanh(proposed + chosen[latent_dim:])

        return act


class Encoder(nn.Module):
    """q(z | s, a): mean and logarithm of the standard deviation, each (N, latent_dim)."""

    def __init__(self, obs_dim: int, action_dim: int, config: BcqLagrangianConfig) -> None:
        super().__init__()
        self.normaliser = Normaliser(obs_dim)
        self.body = perceptron(obs_dim + action_dim, 4 * action_dim, config.hidden)

    def forward(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.body(torch.cat([self.normaliser(observations), actions], dim=1)).chunk(2, dim=1)
        return mean, log_std.clamp(-4.0, 4.0)


@register
class BcqLagrangian(ActorCriticAgent):
    """Actor with its behaviour model, the encoder that trains it, reward critic and cost critic."""

    algorithm = "bcq_lagrangian"
    Config = BcqLagrangianConfig

    def make_modules(self) -> dict[str, nn.Module]:
        actor = BehaviourActor(self.obs_dim, self.action_dim, self.config)
        return {"actor": actor, "encoder": Encoder(self.obs_dim, self.action_dim, self.config), **self.critics()}

    def policy_weights(self) -> list[nn.Parameter]:
        return list(self.actor.choice.parameters())

    def learner(self, data: Transitions, seed: int, config: BcqLagrangianConfig) -> BcqLagrangianLearner:
        return BcqLagrangianLearner(self, data, seed, config)


class BcqLagrangianLearner(ActorCriticLearner):
    """The training step."""

    def __init__(self, agent: Agent, data: Transitions, seed: int, config: BcqLagrangianConfig) -> None:
        super().__init__(agent, data, seed, config)
        self.encoder = agent.modules()["encoder"]
        self.choice_weights = list(self.actor.choice.parameters())
        self.choice_optimiser = torch.optim.Adam(self.choice_weights, lr=config.learning_rate, fused=True)
        self.model_weights = [*self.encoder.parameters(), *self.actor.decoder.parameters()]
        self.model_optimiser = torch.optim.Adam(self.model_weights, lr=config.learning_rate, fused=True)

    def update_policy(self, batch: Batch) -> dict[str, Tensor]:
        model_loss = self.update_model(batch)
        loss = -self.merit(batch, self.actor(batch.observations)).mean()
        descend(loss, self.choice_weights, self.choice_optimiser)
        return {"policy_loss": loss.detach(), "behaviour_loss": model_loss}

    def update_model(self, batch: Batch) -> Tensor:
        """Take a step of the variational auto-encoder."""
        mean, log_std = self.encoder(batch.observations, batch.actions)
        latent = mean + log_std.exp() * torch.randn(mean.shape, generator=self.generator)
        error = (torch.tanh(self.actor.decode(batch.observations, latent)) - batch.actions).square().sum(1)
        divergence = (0.5 * (mean.square() + (2.0 * log_std).exp() - 1.0) - log_std).sum(1)
        loss = batch.mean_within(error + self.config.divergence_weight * divergence)
        descend(loss, self.model_weights, self.model_optimiser)
        return loss.detach()


def descend(loss: Tensor, weights: list[nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
    """Take a step on these weights alone; the loss may depend on others."""
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        weight.grad = gradient
    optimiser.step()
