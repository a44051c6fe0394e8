"""Validation: is a candidate policy good enough to drive, and what does a person need to see to agree?"""
