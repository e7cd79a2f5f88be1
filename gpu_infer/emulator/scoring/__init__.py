"""What answers at the scoring URI of an emulated service: ``front`` lets requests in, ``replicas`` answer them."""
