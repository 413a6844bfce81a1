"""Callbacks for training frameworks: adapters of their public hooks to `keepsake.integrations._base`, one file a framework."""
