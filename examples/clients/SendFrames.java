// Sends frames to a liveptv run from Java: needs only jeromq.jar.  [source] listen = "tcp://127.0.0.1:5560"
//     javac -cp jeromq.jar SendFrames.java && java -cp jeromq.jar:. SendFrames tcp://127.0.0.1:5560 200
import java.nio.charset.StandardCharsets;
import org.zeromq.ZMQ;

public class SendFrames {
    public static void main(String[] arguments) throws InterruptedException {
        int count = Integer.parseInt(arguments[1]), height = 240, width = 320;
        ZMQ.Context context = ZMQ.context(1);
        ZMQ.Socket socket = context.socket(ZMQ.PUSH);
        socket.connect(arguments[0]);
        byte[] image = new byte[height * width]; // uint8; for short[] fill a little-endian ByteBuffer and say uint16
        for (int number = 0; number < count; number++) {
            for (int i = 0; i < image.length; i++) { // here your program has its camera's image
                double dy = i / width - 120, dx = i % width - 60 - number % 200;
                image[i] = (byte) (20 + 200 * Math.exp(-(dx * dx + dy * dy) / 8));
            }
            String header = "{\"htype\":\"array-1.0\",\"type\":\"uint8\",\"shape\":[" + height + "," + width
                + "],\"frame\":" + number + ",\"info\":{\"time_s\":" + number / 25.0 + ",\"pixel_size_um\":0.65}}";
            socket.sendMore(header.getBytes(StandardCharsets.UTF_8));
            socket.send(image, 0);
            Thread.sleep(40);
        }
        String end = "{\"htype\":\"array-1.0\",\"type\":\"uint8\",\"shape\":[0]}"; // the run ends with this
        socket.sendMore(end.getBytes(StandardCharsets.UTF_8));
        socket.send(new byte[0], 0);
        Thread.sleep(1000); // time to send what is under way
        socket.setLinger(5000);
        socket.close();
        context.term();
    }
}
