"""What a job is, whoever runs it: spans of frames, segments, a journal, batches, a store."""
