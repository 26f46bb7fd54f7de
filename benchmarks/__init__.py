"""Speed and memory beside other libraries and the floor."""
