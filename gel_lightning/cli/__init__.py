"""The command gel-fit."""
