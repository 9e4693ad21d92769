"""The gRPC API: servicers, interceptors and conversions."""
