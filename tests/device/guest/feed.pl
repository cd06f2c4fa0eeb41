#!/usr/bin/perl
# Feeds a v4l2loopback device: feed.pl DEVICE WIDTH HEIGHT FRAMES CONTROL SECONDS writes a whole YUYV frame every SECONDS.
# The file CONTROL says what: "normal", "object", "nothing", or "flap N" (N frames of each in turn).
use strict;
use warnings;

my ($device, $width, $height, $dir, $control, $seconds) = @ARGV;
my %frames;
for my $name (qw(normal object)) {
    for my $path (glob "$dir/$name-*.yuyv") {
        open my $file, '<:raw', $path or die "$path: $!";
        local $/;
        push @{ $frames{$name} }, scalar <$file>;
    }
}
open my $out, '+<:raw', $device or die "$device: $!";
# VIDIOC_S_FMT with a struct v4l2_format of 208 bytes (64-bit): type output, then width, height, pixelformat, field none,
# bytesperline, sizeimage, colorspace sRGB.
my $format = pack 'L x4 L L a4 L L L L x168', 2, $width, $height, 'YUYV', 1, 2 * $width, 2 * $width * $height, 8;
ioctl $out, 0xC0D05605, $format or die "VIDIOC_S_FMT: $!";
print "feeding $device\n";
for (my $n = 0; ; $n++) {
    open my $file, '<', $control or die "$control: $!";
    my $what = <$file> // 'normal';
    close $file;
    chomp $what;
    $what = int($n / $1) % 2 ? 'object' : 'normal' if $what =~ /^flap (\d+)$/;
    if ($frames{$what}) {
        my $frame = $frames{$what}[$n % @{ $frames{$what} }];
        my $written = syswrite $out, $frame;
        die "write: " . ($! || 'short') unless defined $written && $written == length $frame;
    }
    select undef, undef, undef, $seconds;
}
