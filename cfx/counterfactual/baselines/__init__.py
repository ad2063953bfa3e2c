"""Published methods of visual counterfactual explanation, each in its own file."""
