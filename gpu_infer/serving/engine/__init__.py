"""What runs the model: queue, batches, device threads, and the process that several workers share."""
