"""The stores of the queue, and the protocols that they implement."""
