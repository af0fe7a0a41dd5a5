"""The replay: buffer, frame stacks, hindsight, priorities and sampling."""
