"""Trained models for others: packages of the BioImage Model Zoo, folders for the Hugging Face Hub, and back."""
