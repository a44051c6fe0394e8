"""Offline safe reinforcement learning agents, one algorithm per file.

    from saferule_core import agents
    agent = agents.train("advantage_weighted", data, cost_limit=10.0, seed=0)
    agent = agents.build(card["algorithm"], spec.obs_dim, spec.action_dim, card["hyperparameters"])
"""

from saferule_core.agents.advantage_weighted import AdvantageWeighted, AdvantageWeightedConfig
from saferule_core.agents.base import Agent, agent_class, algorithms, build, is_foreign, train
from saferule_core.agents.bcq_lagrangian import BcqLagrangian, BcqLagrangianConfig
from saferule_core.agents.decision_transformer import DecisionTransformer, DecisionTransformerConfig
from saferule_core.agents.filtered_cloning import FilteredCloning, FilteredCloningConfig
from saferule_core.agents.memory import Driver, Memory
from saferule_core.agents.onnx_policy import OnnxConfig, OnnxPolicy
from saferule_core.agents.return_conditioned import ReturnConditioned, ReturnConditionedConfig
from saferule_core.agents.td3_bc_lagrangian import Td3BcLagrangian, Td3BcLagrangianConfig

__all__ = [
    "AdvantageWeighted",
    "AdvantageWeightedConfig",
    "Agent",
    "BcqLagrangian",
    "BcqLagrangianConfig",
    "FilteredCloning",
    "FilteredCloningConfig",
    "DecisionTransformer",
    "DecisionTransformerConfig",
    "Driver",
    "Memory",
    "OnnxConfig",
    "OnnxPolicy",
    "ReturnConditioned",
    "ReturnConditionedConfig",
    "Td3BcLagrangian",
    "Td3BcLagrangianConfig",
    "agent_class",
    "algorithms",
    "build",
    "is_foreign",
    "train",
]
