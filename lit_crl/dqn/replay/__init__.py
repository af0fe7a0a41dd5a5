"""What is remembered: the buffer, frame stacks, hindsight, priorities, sampling."""
