"""The gRPC face: servicers, and what surrounds them."""
