"""Poisoning attacks, for tests and benchmarks only: they exist so that repairs can be measured."""
