"""Many runs at once, each in a process of its own. Nothing here imports torch but `worker`."""
