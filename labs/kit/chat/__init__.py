"""Talk to a model: find it, open it, hold a conversation, stream the reply."""
