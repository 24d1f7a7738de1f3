"""What an engine is made from, read and checked before torch is imported: a checkpoint alone, or a deployment."""
