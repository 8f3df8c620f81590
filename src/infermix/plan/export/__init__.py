"""What leaves the planner: files that a gateway, an operator and a buyer read."""
