"""Checking, packing and converting data sets."""
