"""What becomes of a trained run: trained again and compared, judged by gates, made the champion or not, and why."""
