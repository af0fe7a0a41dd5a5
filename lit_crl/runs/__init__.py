"""What a person types, sees and keeps."""
