"""The report: one HTML file that works without a network and can be handed on as it is."""
