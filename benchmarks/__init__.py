"""Longer experiments; their results are committed under results/ and made by the commands in each file."""
