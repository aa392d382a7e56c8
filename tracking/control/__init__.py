"""Control: from live tracks to commands for the microscope; the stage, its record, the controllers."""
