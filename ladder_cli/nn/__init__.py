"""What is trained, and what it is trained on: objectives now, side networks later."""
