"""Probes of a model: has it seen the rows it is scored on?"""
